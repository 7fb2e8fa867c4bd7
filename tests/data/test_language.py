import pytest

from e5jax.data.language import count, language
from tests.data.examples import example

SENTENCES = {
    "ar": "ذهبت إلى السوق صباح اليوم لأشتري الخبز والفاكهة",
    "de": "Heute Morgen war ich auf dem Markt und habe Brot und Obst gekauft.",
    "en": "This morning I went to the market and bought bread and fruit.",
    "es": "Esta mañana fui al mercado y compré pan y fruta para mis hijos.",
    "fa": "امروز صبح به بازار رفتم و نان و میوه خریدم",
    "fi": "Kävin tänä aamuna torilla ja ostin leipää ja hedelmiä.",
    "fr": "Ce matin je suis allé au marché et j'ai acheté du pain et des fruits.",
    "hi": "आज सुबह मैं बाज़ार गया और रोटी और फल खरीदे।",
    "ja": "今朝、市場へ行ってパンと果物を買いました。",
    "ko": "오늘 아침에 시장에 가서 빵과 과일을 샀습니다.",
    "ru": "Сегодня утром я пошёл на рынок и купил хлеб и фрукты.",
    "sw": "Leo asubuhi nilienda sokoni na nikanunua mkate na matunda.",
    "th": "เช้านี้ฉันไปตลาดและซื้อขนมปังกับผลไม้",
    "zh": "今天早上我去市场买了面包和水果，然后回家做饭。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_of_its_language(code):
    assert language(SENTENCES[code]) == code


@pytest.mark.parametrize("text", ["", "Berlin Paris", "Hund", "你好", "def f(x): return x+1", "123 456 789 10 11", "=== --- ==="])
def test_what_is_short_or_no_sentence_is_of_no_language(text):
    assert language(text) == ""


def test_a_higher_confidence_gives_fewer_answers():
    assert language("dove posso mangiare", confidence=0.0) == "it"
    assert language("dove posso mangiare", confidence=0.99) == ""


def test_examples_are_counted_by_source_and_the_language_of_what_is_longest():
    examples = [
        example("1", "Brot", SENTENCES["de"], source="web"),
        example("2", "bread", SENTENCES["de"], source="web"),
        example("3", SENTENCES["en"], "x = 1", source="code"),
        example("4", "x", "y", source="code"),
    ]
    assert count(examples) == {("web", "de"): 2, ("code", "en"): 1, ("code", ""): 1}
