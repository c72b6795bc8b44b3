"""How numerals are said: Japanese by Open JTalk, English and Chinese by wetext; everything else stays as written."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from cosytune.layout import ROOT
from cosytune.text import normalize, spoken_length

DATA = ROOT.parent / "shared" / "data"

JAPANESE = [
    ("2024年3月14日", "ニセンニジュウヨネンサンガツジュウヨッカ"),
    ("12.5度です", "ジュウニーテンゴドです"),
    ("鉛筆が1本", "鉛筆がイッポン"),
    ("3本と6本", "サンボンとロッポン"),
    ("8本、10本、100本", "ハッポン、ジュッポン、ヒャッポン"),
    ("4月9日", "シガツココノカ"),
    ("9時4分", "クジヨンプン"),
    ("午後7時", "午後シチジ"),
    ("9:30に", "クジサンジュップンに"),
    ("10:00と09:05", "ジュウジとクジゴフン"),
    ("12:34:56", "ジュウニジサンジュウヨンプンゴジュウロクビョウ"),
    ("20歳", "ニジュッサイ"),
    ("20日と8日", "ハツカとヨウカ"),
    ("12月1日", "ジュウニガツツイタチ"),
    ("1人と2人と3人と14人", "ヒトリとフタリとサンニンとジュウヨニン"),
    ("3匹の猫", "サンビキの猫"),
    ("1つ、2つ、3つ", "ヒトツ、フタツ、ミッツ"),
    ("3階の8冊", "サンガイのハッサツ"),
    ("1杯、3杯、6杯", "イッパイ、サンバイ、ロッパイ"),
    ("1足と3足", "イッソクとサンゾク"),
    ("10個と10回", "ジュッコとジュッカイ"),
    ("第3回", "第サンカイ"),
    ("3回目と90番目", "サンカイメとキュウジュウバンメ"),
    ("5年間と3時間", "ゴネンカンとサンジカン"),
    ("3か月、1ヶ月", "サンカゲツ、イッカゲツ"),
    ("1,000円", "センエン"),
    ("3万5千円", "サンマンゴセンエン"),
    ("1億2000万円", "イチオクニセンマンエン"),
    ("¥1,000と￥300円", "センエンとサンビャクエン"),
    ("2020-2024年", "ニセンニジュウからニセンニジュウヨネン"),
    ("$3.50と€5", "サンテンゴーゼロドルとゴユーロ"),
    ("5%と２０％", "ゴパーセントとニジュッパーセント"),
    ("3kmと80kg", "サンキロメートルとハチジュッキログラム"),
    ("36℃", "サンジュウロクド"),
    ("50m²", "ゴジュウヘイホウメートル"),
    ("-5度", "マイナスゴド"),
    ("気温は-5度", "気温はマイナスゴド"),
    ("3〜5人", "サンからゴニン"),
    ("10時～12時", "ジュウジからジュウニジ"),
    ("1/2と2/3", "ニブンのイチとサンブンのニ"),
    ("2024/3/14", "ニセンニジュウヨネンサンガツジュウヨッカ"),
    ("2024-03-14", "ニセンニジュウヨネンサンガツジュウヨッカ"),
    ("0.5秒と3.14", "レイテンゴビョウとサンテンイチヨン"),
    ("25,000.5円", "ニマンゴセンテンゴエン"),
    ("03-1234-5678", "ゼロサンノイチニーサンヨンノゴーロクナナハチ"),
    ("09012345678", "ゼロキュウゼロイチニーサンヨンゴーロクナナハチ"),
    ("〒150-0001", "〒イチゴーゼロノゼロゼロゼロイチ"),
    ("1-2-3番地", "イチのニのサンバンチ"),
    ("007", "ゼロゼロナナ"),
    ("2、3人", "ニ、サンニン"),
    ("5・6人", "ゴ・ロクニン"),
    ("3対2、3:2", "サン対ニ、サン対ニ"),
    ("１２．５度ＡＢＣ", "ジュウニーテンゴドABC"),
    ("ﾊﾞﾅﾅを10 本", "バナナをジュッポン"),
    ("「3匹」『2本』（10分間）", "「サンビキ」『ニホン』（ジュップンカン）"),
    ("3×4 10÷2", "サン×ヨン ジュウ÷ニ"),
    ("ver 1.2.3", "ver イチテンニテンサン"),
    ("iPhone15とA4", "iPhoneジュウゴとエーヨン"),
    ("1990年代、30代", "センキュウヒャクキュウジュウネンダイ、サンジュウダイ"),
    ("[breath]3回[laughter]です", "[breath]サンカイ[laughter]です"),
]

AS_WRITTEN = [
    "一人、二人、二十日、三日、十二点五度、二〇二四年。",
    "「はい」『いいえ』（笑）【注】…！？",
    "NHKのABCとKubernetesを使う。",
    "ほんとうにありがとうございました",
    "第三回、約百人、何本。",
]

KATAKANA = [
    ("歴史的世界においては、過去は", "レキシテキセカイニオイテワ、カコワ"),
    ("「プラトン」のいうように（笑）有が有である。", "「プラトン」ノイウヨーニ（ワライ）ユーガユーデアル。"),
    ("東京へ行った！？", "トーキョーエイッタ！？"),
    ("12.5度、二十日、一人。", "ジュウニーテンゴド、ハツカ、ヒトリ。"),
    ("[laughter]Kubernetesを使う", "[laughter]Kubernetesヲツカウ"),
    ("モーニング・コール", "モーニング・コール"),
]

ENGLISH = [
    ("in 1820", "in eighteen twenty"),
    ("Dr. Smith paid $3.50 at 3:30.", "Doctor Smith paid three point five dollars at three thirty."),
    ("It's Mr. O'Neil's 21st birthday, don't!", "It's Mister O'Neil's twenty first birthday, don't!"),
    ('He said "Hi" 3 times \\ “x” — y', 'He said "Hi" three times \\ “x” — y'),
    ("March 14, 2024", "March fourteenth, twenty twenty four"),
    ("3/14/2024 or 2024-03-14", "March fourteenth, twenty twenty four or March fourteenth, twenty twenty four"),
    ("May 1820", "May eighteen twenty"),
    ("50% of 1,000 km", "fifty percent of one thousand kilometers"),
    ("NASA's GPT-4 in 3D", "NASA's GPT-four in three D"),
    ("the 1820s and 1900s", "the eighteen twenties and nineteen hundreds"),
    ("pp. 3-5, 1820-1830", "pp. three to five, eighteen twenty to eighteen thirty"),
    ("at 10 a.m. or 5pm", "at ten AM or five PM"),
    ("$2 million", "two million dollars"),
    ("call 555-1234", "call five five five, one two three four"),
    ("-5 degrees", "negative five degrees"),
    ("1/2, 24/7", "one half, twenty four seven"),
    ("100 m", "one hundred meters"),
    ("No. 5 & 6", "Number five and six"),
    ("Chapter IV. of the U.S., e.g. here", "Chapter IV. of the U.S., e.g. here"),
]

CHINESE = [
    ("2024年3月14日，气温12.5度。", "二零二四年三月十四日，气温十二点五度。"),
    ("我有3本书，5%，-3.5", "我有三本书，百分之五，负三点五"),
    ("这儿有3个人，哪儿？呃，啊。", "这儿有三个人，哪儿？呃，啊。"),
    ("1,000元", "一千元"),
    ('GPT-4和“5个”"6个"', 'GPT-四和“五个”"六个"'),
    ("10:30，1/2，3km/h", "十点三十分，二分之一，每小时三公里"),
    ("没有数字 abc（笑）《书》", "没有数字 abc（笑）《书》"),
    ("[laughter]3个[breath]", "[laughter]三个[breath]"),
]


@pytest.mark.parametrize(("text", "said"), JAPANESE)
def test_japanese(text: str, said: str) -> None:
    assert normalize(text, "ja") == said


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_what_is_no_numeral_stays_as_it_is_written(text: str) -> None:
    assert normalize(text, "ja") == text


@pytest.mark.parametrize(("text", "said"), KATAKANA)
def test_katakana(text: str, said: str) -> None:
    assert normalize(text, "ja", "katakana") == said


@pytest.mark.parametrize(("text", "said"), ENGLISH)
def test_english(text: str, said: str) -> None:
    assert normalize(text, "en") == said


@pytest.mark.parametrize(("text", "said"), CHINESE)
@pytest.mark.parametrize("language", ["zh", "yue"])
def test_chinese(text: str, said: str, language: str) -> None:
    assert normalize(text, language) == said


def test_other_languages_are_cleaned_only() -> None:
    assert normalize("Es sind\u00a012,5 Grad\u200b.", "de") == "Es sind 12,5 Grad."


def corpus() -> list[tuple[str, str]]:
    """(text, language) of all tables here, the demo, and real transcripts where they are."""
    tables = {"ja": [*JAPANESE, *KATAKANA], "en": ENGLISH, "zh": CHINESE}
    texts = [(text, language) for language, table in tables.items() for text, _ in table]
    demo = (ROOT / "egs" / "demo" / "local" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    texts += [(line, "ja") for line in [*demo, *AS_WRITTEN]]
    for folder, language in (("cv_ja4", "ja"), ("ljspeech24", "en")):
        texts += [(path.read_text(encoding="utf-8"), language) for path in sorted((DATA / folder).glob("*.txt"))]
    return texts


def test_nothing_changes_twice() -> None:
    for text, language in corpus():
        for script in ("written", "katakana"):
            once = normalize(text, language, script)
            assert normalize(once, language, script) == once
        assert normalize(normalize(text, language), language, "katakana") == once


def test_nothing_changes_twice_or_fails_in_any_mixture() -> None:
    """Japanese, Latin, marks and digits in any order; no digit is left and what is no numeral is still there."""
    draw = random.Random(0)
    words = "東京 NHK ver A km m 年 月 日 時 分 本 人 つ か は が ア ー 😀 。 、 「 」 （ ）"
    numerals = "0 1 2 30 404 5.5 1,000 : / - 〜 % ¥ $ ."
    parts = [*words.split(), *numerals.split(), "５", "٣", "²", " "]
    for _ in range(150):
        text = "".join(draw.choice(parts) for _ in range(12))
        for language in ("ja", "en", "zh"):
            once = normalize(text, language)
            assert normalize(once, language) == once, text
            if language == "ja":
                assert not re.search("[0-9]", once), text
                for kept in ("東京", "😀", "「", "」", "（", "）", "NHK"):
                    assert once.count(kept) == text.count(kept), text


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs real transcripts in {DATA}")
def test_of_real_transcripts_only_numerals_change() -> None:
    for folder, language in (("cv_ja4", "ja"), ("ljspeech24", "en")):
        paths = sorted((DATA / folder).glob("*.txt"))
        assert paths
        for path in paths:
            text = " ".join(path.read_text(encoding="utf-8").split())
            if not re.search(r"[0-9&]|\b[A-Z][a-z]+\.", text):
                assert normalize(text, language) == text


@pytest.mark.parametrize(
    "text",
    [
        "あいうえお" * 1000,
        "アイウエオ" * 1000,
        "今日は良い天気です" * 600,
        "ありがとうございます。" * 500,
        "漢" * 3000,
        "1" * 3000,
        "ー" * 3000,
        "「" * 3000,
        "😀" * 2000,
        "word " * 1000,
        "1本 " * 1000,
    ],
)
def test_long_text_is_neither_cut_nor_refused(text: str) -> None:
    said = normalize(text, "ja")
    if not re.search("[0-9]", text):
        assert said == text.strip()
    assert len(normalize(f"{text}3本", "ja")) >= len(said) + len("サンボン") - 1
    assert normalize(f"{text}。終わり。", "ja", "katakana").endswith("。オワリ。")


def test_a_cut_for_open_jtalk_spares_numerals() -> None:
    for length in range(480, 520):
        assert normalize("あ" * length + "2024年3月14日", "ja").endswith("あニセンニジュウヨネンサンガツジュウヨッカ")


def test_open_jtalk_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """It complains on stderr, from C, about a long vowel mark without a vowel; a user could do nothing about it."""
    for text in ("ーーー！", "「ー」3本", "え、ー", "NHK々ー5", "あ😀ーー", "²ー"):
        assert normalize(text, "ja", "katakana").count("ー") >= text.count("ー")
    assert capfd.readouterr() == ("", "")


def test_many_threads_get_the_answers_of_one() -> None:
    texts = corpus()
    alone = [normalize(text, language) for text, language in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: normalize(*one), texts)) == alone


@pytest.mark.parametrize(
    ("text", "language", "units"),
    [
        ("今日は。", "ja", 3),
        ("キャット、シャッ！", "ja", 5),
        ("東京[laughter]12.5度", "ja", 4 + 8),
        ("你好，[breath]12个abc", "zh", 2 + 3 + 3),
        ("It's 5 o'clock [sigh]", "en", 3 + 4 + 6),
        ("Grüß Gott 12", "de", 10),
        ("<strong>…</strong>", "ja", 0),
    ],
)
def test_spoken_length(text: str, language: str, units: int) -> None:
    assert spoken_length(text, language) == units
