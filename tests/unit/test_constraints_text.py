"""Words, sentences and languages, as checkers see them."""

from __future__ import annotations

import importlib.util

import pytest

from rewards.constraints import language
from rewards.constraints.text import count_words, has_word, sentences
from rlhf.core.errors import ConfigError
from rlhf.core.instructions import LANGUAGES

SENTENCES = [
    ("", []),
    ("...", []),
    ("No mark at all", ["No mark at all"]),
    ("One. two! three? four", ["One.", "two!", "three?", "four"]),
    ("A heading\n\nand its text. More.", ["A heading\n\nand its text.", "More."]),
    ("Mr. Smith met Dr. J. Doe, e.g. at No. 5.", ["Mr. Smith met Dr. J. Doe, e.g. at No. 5."]),
    ("It is 3.14 at example.com. Yes.", ["It is 3.14 at example.com.", "Yes."]),
    ("Cars, bikes, etc. The rest stays.", ["Cars, bikes, etc.", "The rest stays."]),
    ("Bikes etc. are fine.", ["Bikes etc. are fine."]),
    ("We left the U.S. Then it rained.", ["We left the U.S.", "Then it rained."]),
    ("The U.S. Senate met at 5 p.m. on Monday.", ["The U.S. Senate met at 5 p.m. on Monday."]),
    ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
    ('"Stop!" he said.', ['"Stop!" he said.']),
    ("Wait... what? Wait... What?", ["Wait... what?", "Wait...", "What?"]),
    ("What?! No!!! **Never.** (Ever.)", ["What?!", "No!!!", "**Never.**", "(Ever.)"]),
    ("1. First\n2. Second.\n 3. Third", ["1. First\n2. Second.", "3. Third"]),
    ("It was 1999. It was 5. So what", ["It was 1999.", "It was 5.", "So what"]),
    ("It was I. You knew.", ["It was I.", "You knew."]),
    ("P.S. Call me.", ["P.S. Call me."]),
    ("我来了。你呢？好！", ["我来了。", "你呢？", "好！"]),
    ("मैं ठीक हूँ। तुम?", ["मैं ठीक हूँ।", "तुम?"]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_a_text_has_these_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("a_b 3.5 it's", 5), ("naïve 世界!", 2), ("हिन्दी में", 2), ("e\u0301te\u0301", 1), ("\u0301", 0)],
)
def test_words_are_counted(text: str, number: int) -> None:
    assert count_words(text) == number


@pytest.mark.parametrize(
    ("text", "phrase", "there"),
    [
        ("a cat", "cat", True),
        ("cats cat", "CAT", True),
        ("cats", "cat", False),
        ("x_cat", "cat", False),
        ("İcat", "cat", False),
    ],
)
def test_a_word_of_its_own_is_found(text: str, phrase: str, there: bool) -> None:
    assert has_word(text, phrase) is there


SAID = {
    "en": "The weather was bad, so we stayed at home and read the newspaper all afternoon.",
    "de": "Das Wetter war schlecht, deshalb blieben wir zu Hause und lasen den ganzen Nachmittag die Zeitung.",
    "fr": "Il faisait mauvais temps, alors nous sommes restés à la maison et avons lu le journal.",
    "es": "Hacía mal tiempo, así que nos quedamos en casa y leímos el periódico toda la tarde.",
    "sw": "Hali ya hewa ilikuwa mbaya, kwa hiyo tulikaa nyumbani na kusoma gazeti mchana wote.",
    "vi": "Thời tiết xấu nên chúng tôi ở nhà và đọc báo suốt buổi chiều.",
    "ru": "Погода была плохая, поэтому мы остались дома и весь день читали газету.",
    "uk": "Погода була погана, тому ми залишилися вдома і весь день читали газету.",
    "bg": "Времето беше лошо, затова останахме вкъщи и четохме вестник целия следобед.",
    "ar": "كان الطقس سيئا لذلك بقينا في المنزل وقرأنا الجريدة طوال فترة ما بعد الظهر.",
    "fa": "هوا بد بود، بنابراین در خانه ماندیم و تمام بعد از ظهر روزنامه خواندیم.",
    "ur": "موسم خراب تھا، اس لیے ہم گھر پر رہے اور ساری دوپہر اخبار پڑھتے رہے۔",
    "hi": "मौसम खराब था, इसलिए हम घर पर रहे और पूरी दोपहर अखबार पढ़ते रहे।",
    "mr": "हवामान खराब होते, म्हणून आम्ही घरीच राहिलो आणि दुपारभर वर्तमानपत्र वाचत बसलो.",
    "ne": "मौसम खराब थियो, त्यसैले हामी घरमै बस्यौं र दिउँसोभरि पत्रिका पढ्यौं।",
    "bn": "আবহাওয়া খারাপ ছিল, তাই আমরা বাড়িতেই ছিলাম।",
    "pa": "ਮੌਸਮ ਖਰਾਬ ਸੀ, ਇਸ ਲਈ ਅਸੀਂ ਘਰ ਰਹੇ।",
    "ta": "வானிலை மோசமாக இருந்தது, எனவே நாங்கள் வீட்டிலேயே இருந்தோம்.",
    "ko": "날씨가 나빠서 우리는 집에 있었습니다.",
    "ja": "天気が悪かったので、家にいました。",
    "zh": "天气不好，所以我们待在家里。",
    "el": "Ο καιρός ήταν κακός, οπότε μείναμε σπίτι.",
    "he": "מזג האוויר היה גרוע, אז נשארנו בבית.",
}


@pytest.mark.parametrize("code", SAID)
def test_a_text_is_in_its_language_alone(code: str) -> None:
    assert [other for other in SAID if language.is_in(SAID[code], other)] == [code]


def test_capitals_and_emoji_do_not_hide_a_language() -> None:
    assert language.is_in(SAID["en"].upper(), "en") and not language.is_in(SAID["de"].upper(), "en")
    assert language.is_in("🍾" * 3000 + SAID["fr"], "fr")


def test_what_has_no_letters_is_in_no_language() -> None:
    assert not any(language.is_in(text, code) for text in ("", "12:30!", "🍾 ***") for code in LANGUAGES)


def test_of_a_few_letters_the_script_is_all_that_is_known() -> None:
    assert language.is_in("ok", "de") and language.is_in("ok", "en") and not language.is_in("ok", "ru")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    language._identifier.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert language.is_in("สวัสดี", "th"), "a script of its own needs no package"
    with pytest.raises(ConfigError, match="need the package py3langid") as caught:
        language.is_in(SAID["en"], "en")
    assert "pip install 'rlhf[constraints]'" in caught.value.fix
