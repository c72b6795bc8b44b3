"""What the report lets a voice say when the recipe names nothing: a greeting, a question, numbers, a long sentence.

`MORE` is what a comparison with intervals needs besides: as many sentences again as it takes, heard by judges alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SENTENCES: Mapping[str, Sequence[str]] = {
    "ja": (
        "おはようございます。今日もよろしくお願いします。",
        "次の電車は何時に出ますか。",
        "会議は十月二十五日の午後三時から始まります。",
        "雨が上がると、窓の外では小鳥が鳴き始め、街は少しずつ朝の音に満ちていきました。",
    ),
    "zh": (
        "早上好，很高兴见到你。",
        "下一班火车几点出发？",
        "会议在十月二十五号下午三点开始。",
        "雨停了以后，窗外的小鸟开始歌唱，城市慢慢地醒来。",
    ),
    "yue": (
        "早晨，好高興見到你。",
        "下一班火車幾點開呀？",
        "會議喺十月二十五號下晝三點開始。",
        "落完雨之後，窗外啲雀仔開始唱歌，成個城市慢慢醒返。",
    ),
    "en": (
        "Good morning, it is a pleasure to meet you.",
        "When does the next train leave?",
        "The meeting starts at three in the afternoon on the twenty-fifth of October.",
        "When the rain had stopped, the birds began to sing, and the town slowly filled with the sounds of morning.",
    ),
    "ko": (
        "안녕하세요, 만나서 반갑습니다.",
        "다음 기차는 몇 시에 출발하나요?",
        "회의는 시월 이십오일 오후 세 시에 시작합니다.",
        "비가 그치자 창밖에서 새들이 노래하기 시작했고, 도시는 천천히 깨어났습니다.",
    ),
    "de": (
        "Guten Morgen, es freut mich, Sie kennenzulernen.",
        "Wann fährt der nächste Zug?",
        "Die Besprechung beginnt am fünfundzwanzigsten Oktober um drei Uhr nachmittags.",
        "Als der Regen aufhörte, begannen die Vögel zu singen, und die Stadt erwachte langsam.",
    ),
    "fr": (
        "Bonjour, je suis ravi de vous rencontrer.",
        "À quelle heure part le prochain train ?",
        "La réunion commence le vingt-cinq octobre à trois heures de l'après-midi.",
        "Quand la pluie cessa, les oiseaux se mirent à chanter, et la ville s'éveilla lentement.",
    ),
    "es": (
        "Buenos días, es un placer conocerle.",
        "¿A qué hora sale el próximo tren?",
        "La reunión empieza el veinticinco de octubre a las tres de la tarde.",
        "Cuando dejó de llover, los pájaros empezaron a cantar y la ciudad despertó poco a poco.",
    ),
    "it": (
        "Buongiorno, è un piacere conoscerla.",
        "A che ora parte il prossimo treno?",
        "La riunione comincia il venticinque ottobre alle tre del pomeriggio.",
        "Quando smise di piovere, gli uccelli cominciarono a cantare e la città si svegliò lentamente.",
    ),
    "ru": (
        "Доброе утро, очень рад знакомству.",
        "Во сколько отходит следующий поезд?",
        "Совещание начинается двадцать пятого октября в три часа дня.",
        "Когда дождь кончился, за окном запели птицы, и город стал медленно просыпаться.",
    ),
}

MORE: Mapping[str, Sequence[str]] = {
    "ja": (
        "今朝は霧が深くて、向こうの山が見えません。",
        "荷物は玄関の前に置いておいてください。",
        "あの店のラーメンは、夜遅くまで食べられますか。",
        "父は庭で、赤いバラを育てています。",
        "九月の終わりに、家族で北海道へ行く予定です。",
        "この道をまっすぐ進むと、大きな橋が見えてきます。",
        "眠れない夜は、温かい牛乳を飲むといいですよ。",
        "壊れた時計を直すのに、三週間かかりました。",
        "電話が鳴っているのに、誰も出ようとしない。",
        "体育館の鍵は、どなたがお持ちですか。",
        "昔この辺りには、小さな映画館があったそうです。",
        "急に停電して、部屋が真っ暗になった。",
        "妹は絵を描くことが、何よりも好きです。",
        "応募の締め切りは、六月十五日の正午です。",
        "ゆうべ遅くまで、友達と将棋を指していた。",
        "空港までは、バスとタクシーのどちらが早いですか。",
        "水を出しっぱなしにしないでください。",
        "彼の話は長いけれど、いつも面白い。",
        "工事のため、しばらくの間ご迷惑をおかけします。",
        "港に着いた船から、大勢の人が降りてきました。",
        "砂糖の代わりに、蜂蜜を入れてみました。",
        "約束の時間を過ぎても、彼は現れなかった。",
        "健康のために、階段を使うようにしています。",
        "申し訳ありませんが、もう少しゆっくり話していただけますか。",
    ),
}
"""Of other languages there are those above alone."""
