import pytest

from e5jax.datasets.language import language, language_of, with_language
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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Berlin Paris",
        "Hund",
        "the house",
        "bread",
        "你好",
        "def f(x): return x+1",
        "123 456 789 10 11",
        "=== --- ===",
    ],
)
def test_what_is_short_or_no_sentence_is_of_no_language(text):
    assert language(text) == ""


def test_a_higher_confidence_gives_fewer_answers():
    assert language("dove posso mangiare", confidence=0.0) == "it"
    assert language("dove posso mangiare", confidence=0.99) == ""


def test_the_language_of_an_example_is_filled_in_where_it_is_empty_and_can_be_told():
    examples = [
        example("1", "Brot", SENTENCES["de"]),
        example("2", "This morning I ate bread", SENTENCES["de"]),
        example("3", SENTENCES["en"], "x = 1"),
        example("4", "x", "y"),
        example("5", SENTENCES["en"], SENTENCES["en"])._replace(language="fr"),
    ]
    found = list(with_language(examples))
    assert [one.language for one in found] == ["de", "de", "en", "", "fr"]
    assert [one._replace(language="") for one in found] == [
        one._replace(language="") for one in examples
    ]


def test_words_that_are_alone_are_of_no_language_however_sure_the_model_is():
    found = {
        word: language(f"{word} {word}", confidence=0.0)
        for word in ("although", "wahrscheinlich", "quelquefois")
    }
    assert set(found.values()) == {""}
    assert language("wahrscheinlich wahrscheinlich wahrscheinlich", confidence=0.0) == "de"


def test_positives_decide_before_the_query_and_negatives_never():
    one = example("1", "Brot", "x = 1", (SENTENCES["fr"],))
    assert language_of(one) == ""
    assert language_of(example("2", SENTENCES["fr"], "x = 1")) == "fr"
    assert language_of(example("3", SENTENCES["fr"], "bread and fruit are here")) == "en"
    assert (
        language_of(example("4", "x", "the")._replace(positives=("the", "house", "is", "red")))
        == "en"
    )
