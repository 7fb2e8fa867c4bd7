"""How fast to ask: buckets of requests and tokens, a pause for everyone, and a rate that follows what the endpoint takes.

Pure functions of the time that is passed in: the session waits on them, tests run them on a clock of their own.
"""

import math

BURST = 0.05  # seconds' worth of a bucket: more would come out at once after a pause
CUT = 0.96  # of the rate, when the endpoint says that it was too much; deeper when it refuses many requests,
DEEPEST = 0.7  # by the share that it refuses, down to this, of
ENOUGH = 10  # requests or more: fewer are no evidence, as a refusal may come by chance
FADE = 0.5  # what evidence is worth after each cut that it led to
GROWTH = 2.5e-5  # the rate grows by exp(GROWTH · seconds²) since the last cut: back in 40 s, tenfold in 5 minutes,
STEADY = 4e-6  # and no faster than exp(STEADY · requests²): a refusal in a hundred, however few there are a minute
SHORTEST = 1e-6  # seconds that are worth waiting
LEAST = 0.1  # requests a second: many go unanswered before `endpoint.patience` is over


class Bucket:
    """Fills with time. Anything may be taken from a bucket that is not empty, a debt is waited for."""

    def __init__(self, rate: float):
        self.rate = rate  # a second
        self._level, self._at = 0.0, -math.inf

    def wait(self, now: float, most: float) -> float:
        """Seconds until something may be taken, up to `most` being there already."""
        if math.isinf(self.rate):
            return 0.0
        self._level = min(most, self._level + self.rate * (now - self._at))
        self._at = now
        return max(0.0, -self._level / self.rate)

    def take(self, amount: float) -> None:
        self._level -= amount


class Limiter:
    """`take` before a request, `answered` or `refused` after it."""

    def __init__(self, requests_a_minute: float = 0, tokens_a_minute: float = 0):
        self._most = requests_a_minute / 60 or math.inf
        self._requests = Bucket(self._most)
        self._tokens = Bucket(tokens_a_minute / 60 or math.inf)
        self._tokens_most = self._tokens.rate
        self.paused_until = -math.inf
        self._cut_at, self._good = (
            0.0,
            0,
        )  # when the rate was cut last, and requests since then that were not refused
        self._base = math.inf  # the rate then
        self._sent = self._refused = (
            0.0  # the evidence: requests, and those that were refused; older ones count less
        )
        self._broken = 0  # in a row
        self._started = False

    @property
    def rate(self) -> float:
        """Requests a second that are aimed at."""
        return self._requests.rate

    def take(self, now: float, tokens: int) -> float:
        """0 and the request may go, or the seconds after which to ask again."""
        if not self._started:
            self._started, self._cut_at = True, now
        if now < self.paused_until:
            return self.paused_until - now
        self._grow(now)
        wait = max(
            self._requests.wait(now, self._requests.rate * BURST),
            self._tokens.wait(now, self._tokens.rate * BURST),
        )
        if wait > SHORTEST:
            return wait
        self._good += 1
        self._sent += 1
        self._requests.take(1)
        self._tokens.take(tokens)
        return 0.0

    def answered(self, taken: int, used: int) -> None:
        """A reply arrived: what it did not use of the tokens it took goes back."""
        self._broken = 0
        self._tokens.take(used - taken)

    def refused(self, now: float, sent: float, wait: float | None) -> None:
        """The endpoint said that this was too much. Requests that were on their way by the last cut say nothing new."""
        self._refused += 1
        if wait is not None:
            self.pause(now, wait)
        if sent >= self._cut_at:
            self._cut(now, CUT)

    def broke(self, now: float) -> None:
        """The endpoint failed. Once it has done so again and again, nobody rushes to it when it is back."""
        self._broken += 1
        if math.isinf(self.rate) and ENOUGH <= self._broken <= self._sent / 2:
            self._cut(now, 1.0)

    def _cut(self, now: float, most: float) -> None:
        """To `most` of the rate, or to the share that was taken. Without a rate, to what was taken a second."""
        self._base = most * self.rate
        if self._sent >= ENOUGH:
            if math.isinf(self.rate):
                self._base = (
                    most
                    * max(1, self._sent - self._refused - self._broken)
                    / max(1.0, now - self._cut_at)
                )
            else:
                self._base = self.rate * min(most, max(DEEPEST, 1 - self._refused / self._sent))
            self._sent, self._refused = FADE * self._sent, FADE * self._refused
        self._base = max(LEAST, self._base)
        self._cut_at, self._good = max(now, self.paused_until), 0
        self._grow(self._cut_at)

    def pause(self, now: float, wait: float) -> None:
        """Nobody sends anything for that long."""
        self.paused_until = max(self.paused_until, now + wait)

    def _grow(self, now: float) -> None:
        scale = math.exp(
            min(GROWTH * max(0.0, now - self._cut_at) ** 2, STEADY * self._good**2, 50)
        )
        self._requests.rate = min(self._most, self._base * scale)
