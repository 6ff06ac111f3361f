"""Texts to try tokenizers on: the same 3,000 every time, made from the words below by a generator of its own."""

import unicodedata

COUNT = 3000

# Words, with what stands between them and what ends a sentence.
LANGUAGES = {
    "English": ("the quick brown fox's jumps over I've we'll DON'T lazy dog naïve café co-operate U.S.A. running unbelievable", " ", ".?!"),
    "German": ("der Straße über Donaudampfschifffahrt größer schön Überraschung weiß Füße daß Äpfel nicht können", " ", ".?!"),
    "French": ("l'été où garçon qu'il s'est œuvre naïf Noël çà déjà aujourd'hui français forêt « bien »", " ", ".?!"),
    "Spanish": ("¿qué niño mañana corazón ¡hola pingüino acción él está años también señor", " ", ".?!"),
    "Portuguese": ("não coração amanhã três avô pão você língua então São ações", " ", ".?!"),
    "Italian": ("perché città dell'arte più così l'uomo è già università ciò", " ", ".?!"),
    "Polish": ("żółć źdźbło chrząszcz święta łódź ćma zażółć gęślą jaźń się", " ", ".?!"),
    "Czech": ("příliš žluťoučký kůň úpěl ďábelské ódy řeka těžký Dvořák", " ", ".?!"),
    "Hungarian": ("árvíztűrő tükörfúrógép őrült gyönyörű szőlő kérdés művész", " ", ".?!"),
    "Turkish": ("İstanbul ığdır şeker çocuk güneş ağaç öğretmen ılık Iğdır", " ", ".?!"),
    "Vietnamese": ("tiếng Việt đường phố nghiêng người ưở được những ngày mưa ấm", " ", ".?!"),
    "Finnish": ("äiti yö hääyöaie järjestelmällisyys pää työ Åbo", " ", ".?!"),
    "Icelandic": ("þetta ætti að vera íslenska Ðjúp ástæða öðruvísi", " ", ".?!"),
    "Romanian": ("și în țară mâine știință fără îngheț ași", " ", ".?!"),
    "Latvian": ("šķērsām ģimene ķirbis ļoti ņemt ūdens čaula", " ", ".?!"),
    "Welsh": ("ŵyl dŵr llanfair tŷ môr ysgol cymraeg", " ", ".?!"),
    "Yoruba": ("ọjọ́ ẹ̀kọ́ ṣé àgbàlagbà ń lọ ilé", " ", ".?!"),
    "Hausa": ("ɓera ɗaki ƙasa ƴanci gida sannu", " ", ".?!"),
    "Swahili": ("habari ng'ombe mtoto anapenda kusoma vitabu", " ", ".?!"),
    "Russian": ("съешь ещё этих мягких французских булок Привет мир ёлка объявление Москва", " ", ".?!"),
    "Ukrainian": ("їжак ґанок п'ять єдність Київ вітання щастя", " ", ".?!"),
    "Serbian": ("љубав њива ђак џеп ћирилица Београд", " ", ".?!"),
    "Kazakh": ("қазақ тілі ғылым әлем өмір ұлы үй һауа іңір", " ", ".?!"),
    "Mongolian": ("монгол хэл өдөр үүл ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", " ", ".?!"),
    "Greek": ("Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία ᾠδή ἄνθρωπος λόγος ΣΊΣΥΦΟΣ ς", " ", ".;!"),
    "Armenian": ("Բարև աշխարհ հայերեն լեզու և գիրք ﬓ", " ", "։՞"),
    "Georgian": ("გამარჯობა მსოფლიო ქართული ენა ᲗᲑᲘᲚᲘᲡᲘ", " ", ".?!"),
    "Hebrew": ("שָׁלוֹם עולם עברית צה״ל ירושלים מִלָּה ספר", " ", ".?!"),
    "Arabic": ("مرحبا العالم السَّلامُ عليكم كِتَاب ﷺ لغة عربية مدرسة ﻻ", " ", ".؟!"),
    "Persian": ("می‌خواهم کتاب‌ها پارسی گچ پژوهش ایران", " ", ".؟!"),
    "Urdu": ("اردو زبان ہے ٹھیک ڈاکٹر نہیں", " ", "۔؟"),
    "Hindi": ("नमस्ते दुनिया हिन्दी क्षत्रिय ज़मीन श्री में है विद्यार्थी", " ", "।?"),
    "Bengali": ("বাংলা ভাষা আমি ক্ষুদ্র দুঃখ কিন্তু বিশ্ব", " ", "।?"),
    "Gurmukhi": ("ਪੰਜਾਬੀ ਸਤਿ ਸ੍ਰੀ ਅਕਾਲ ਖ਼ੁਸ਼", " ", "।"),
    "Gujarati": ("ગુજરાતી ક્ષમા શ્રી નમસ્તે", " ", "."),
    "Tamil": ("தமிழ் மொழி வணக்கம் கொண்டு க்ஷ", " ", "."),
    "Telugu": ("తెలుగు భాష నమస్కారం క్షేత్రం", " ", "."),
    "Kannada": ("ಕನ್ನಡ ಭಾಷೆ ಕ್ಷಣ ಹೋಗು", " ", "."),
    "Malayalam": ("മലയാളം ഭാഷ ക്ഷീണം ചില്ല് ന്‍", " ", "."),
    "Sinhala": ("සිංහල භාෂාව ශ්‍රී ලංකා", " ", "."),
    "Thai": ("สวัสดี ชาวโลก ภาษาไทย น้ำ เก่ง กรุงเทพฯ ๆ", "", " ฯ"),
    "Lao": ("ສະບາຍດີ ພາສາລາວ ນ້ຳ ຫຼາຍ", "", " "),
    "Khmer": ("ភាសាខ្មែរ សួស្តី ពិភពលោក ព្រះ", "", "។"),
    "Burmese": ("မြန်မာ ဘာသာ မင်္ဂလာပါ ကျွန်ုပ်", "", "။"),
    "Tibetan": ("བོད་ཡིག བཀྲ་ཤིས་ བདེ་ལེགས རྫོགས", "་", "།"),
    "Amharic": ("ሰላም ዓለም አማርኛ ኢትዮጵያ", " ", "።"),
    "Chinese": ("你好 世界 中文 我们 学习 人工智能 龍 臺灣 的 𠮷野家 北京市", "", "。？！"),
    "Japanese": ("こんにちは 世界 日本語 カタカナ ｶﾀｶﾅ がぎぐ パピプ 東京 は 々 ー", "", "。？！"),
    "Korean": ("안녕하세요 세계 한국어 값이 서울 뷁 ㅋㅋㅋ 은 는", " ", ".?!"),
    "Cherokee": ("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꭰꮝꮣ", " ", "."),
    "Inuktitut": ("ᐃᓄᒃᑎᑐᑦ ᓄᓇᕗᑦ", " ", "."),
    "Runic": ("ᚠᚢᚦᚨᚱᚲ ᛋᛏᚨᛁᚾ", "᛫", " "),
    "Gothic": ("𐌲𐌿𐍄𐌹𐍃𐌺 𐌰𐍄𐍄𐌰", " ", "."),
    "Cuneiform": ("𒀭𒂗𒆤 𒈗", " ", " "),
    "N'Ko": ("ߒߞߏ ߞߊ߲", " ", "߹"),
    "Tifinagh": ("ⵜⴰⵎⴰⵣⵉⵖⵜ ⴰⵣⵓⵍ", " ", "."),
    "Syriac": ("ܫܠܡܐ ܥܠܡܐ", " ", "܀"),
    "Adlam": ("𞤀𞤣𞤤𞤢𞤥 𞤆𞤵𞤤𞤢𞤪", " ", "."),
}
RIGHT_TO_LEFT = ["Hebrew", "Arabic", "Persian", "Urdu", "Syriac", "N'Ko", "Adlam"]
BIDI_MARKS = ["\u200e", "\u200f", "\u202b", "\u202c", "\u2067", "\u2069", "\u061c"]

EMOJI = (
    "😀 😂 🥲 ❤ ❤️ 👍🏽 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🏴‍☠️ 🇫🇷 🇯🇵 🇺🇳 🏴󠁧󠁢󠁳󠁣󠁴󠁿 1️⃣ #️⃣ ☺ ☺️ ☹︎ ✈️ ⚡ 🫠 🧑🏿‍🚀 🪿 ✨ 🀄 ♟️ 🅰️ © ™️ 〰️ 🩷 👁️‍🗨️ 🙋‍♀️ 🇦 🏻"
).split(" ")
NAMES = "x y_1 userName HTTPServer MAX_LEN fooBar2 __init__ i _ αβ größe".split(" ")
CODE = [
    "def {a}({b}: int = {n}) -> str:\n{t}return f\"{{{b}!r}} \\n\"\n",
    "for (int {a} = 0; {a} < {n}; ++{a}) {{\n{t}{b}[{a}] += 0x{n:X}ULL;\n}}",
    "let mut {a}: Vec<&'static str> = vec![\"{b}\"; {n}]; // {a}::<{b}>()\r\n",
    "SELECT {a}, COUNT(*) FROM `{b}` WHERE id >= {n} AND name LIKE '%x%';",
    "<div class=\"{a}\" id='{b}'>{n}&nbsp;<br/></div><!-- {a} -->",
    "{{\"{a}\": [{n}, -1.5e-{n}, null], \"{b}\": {{\"k\\u00e9\": true}}}}",
    "#include <{a}.h>\n#define {b}(x) ((x)<<{n})\n\n\n{t}{t}if(!{a}&&{b}||~{n}){{}}\n",
    "$ {a} --{b}={n} | grep -E '^[a-z]+\\s*$' > /tmp/{a}.txt 2>&1 && echo \"$?\"",
    "\\begin{{equation}} \\frac{{{a}}}{{{b}}} = \\sum_{{i=1}}^{{{n}}} x_i^2 \\end{{equation}}",
    "const {a} = async ({b}) => ({{ ...{b}, n: {n} }});\n\n\nexport default {a}\n",
    "{t}{t}{t}@{a}.{b}(lambda *_, **k: k['{n}'])\n{t}class {a}({b}):\n{t}{t}pass\n",
    "# {a}\n\n* **{b}**: `{n}`\n  1. [link](https://example.org/{a}?q={b}&n={n}#top)\n\n---\n",
    "+{t}{a}\n-{t}{b}\n@@ -{n},7 +{n},8 @@\n",
    "///{a}//{b}/\\/{n}\n/**/",
    "{a}:={b};;;{{{{{n}}}}}[[[]]]()()<<<>>>!!!===",
]
INDENTS = ["    ", "\t", "  ", " \t ", "", "        "]
BLANKS = [
    " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\u00a0", "\u2003", "\u2009", "\u3000", "\u200b", "\u000b", "\u000c", "\u0085",
    "\u2028", "\u2029", "\u202f", "\u205f", "\u1680", "\u180e", "\ufeff", "\u2060", "\u001c", "\u001f", "▁", "Ġ", "Ċ",
]
MARKS = [chr(c) for c in (
    0x300, 0x301, 0x302, 0x303, 0x308, 0x30A, 0x30C, 0x323, 0x327, 0x328, 0x331, 0x338, 0x345, 0x34F, 0x360, 0x489, 0x5B8, 0x651,
    0x93C, 0x94D, 0x9BE, 0xE31, 0xE49, 0x20DD, 0x20E3, 0x3099, 0x309A, 0xFE0F, 0x1D165,
)]
BASES = list("aeioucnsAEIOUzdlyq1 אبकกかハ가") + ["Å", "Ω", "K", "ﬁ", "ﬀ", "ǆ", "½", "①", "Ａ", "ﾊ", "豈", "﨩", "각", "Ǖ", "ﷺ", "ｱﾞ", "ᾳ"]
DIGITS = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "๐๑๒๓๔๕๖๗๘๙", "０１２３４５６７８９", "⁰¹²³⁴⁵⁶⁷⁸⁹", "𝟘𝟙𝟚𝟛𝟜𝟝𝟞𝟟𝟠𝟡", "〇一二三四五六七八九", "ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ"]
NUMBERS = ["{a}.{b}", "{a},{b},{c}", "-{a}e+{c}", "{a}-{c}-{c}", "{c}:{c}:{c}", "${a}.{c}", "{a}%", "{a}/{b}", "v{c}.{c}.{c}-rc{c}", "0x{b}", "+{c} ({b}) {a}", "{a} {b}", "{a}_{b}", "x{a}y{b}", "{a}½", "{c}°{c}′", "№{a}", "{a}ª"]
SPECIALS = (
    "<|im_start|> <|im_end|> <|endoftext|> <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> <|vision_start|> "
    "<|image_pad|> <|fim_prefix|> <|fim_middle|> <|file_sep|> <|repo_name|> <|begin_of_text|> <|eot_id|> <|eom_id|> "
    "<|start_header_id|> <|end_header_id|> <|python_tag|> <|finetune_right_pad_id|> <|reserved_special_token_0|> "
    "<|reserved_special_token_247|> <bos> <eos> <pad> <unk> <mask> <start_of_turn> <end_of_turn> <start_of_image> <end_of_image> "
    "<image_soft_token> <unused0> <unused6241> <unused99> [multimodal] <|startoftext|> <|return|> <|constrain|> <|channel|> <|start|> "
    "<|end|> <|message|> <|call|> <|endofprompt|> <|reserved_200017|> <repo_name> <file_sep> <jupyter_code> <empty_output> "
    "<issue_start> <gh_stars> <s> </s> [INST] [/INST] <<SYS>> <0x0A> <0xE2> <table> </table> <h1> <b> <i> <sup> <code> <strong> "
    "<|user|> <|assistant|> <｜User｜> <0x> <|object_ref_start|> <|quad_end|> ▁▁ ▁▁▁▁▁▁▁▁"
).split(" ")
# Beginnings of blocks and how much of them is drawn from.
BLOCKS = [
    (0x00, 0x20), (0x7F, 0x21), (0xA0, 0x60), (0x100, 0x100), (0x180, 0xD0), (0x250, 0xB0), (0x2B0, 0x50), (0x370, 0x90), (0x400, 0x130),
    (0x530, 0x60), (0x5B0, 0x50), (0x600, 0x100), (0x700, 0xC0), (0x800, 0x60), (0x860, 0xA0), (0x900, 0x80), (0x980, 0x80), (0xB80, 0x80),
    (0xE00, 0x60), (0xF00, 0x100), (0x1000, 0xA0), (0x10A0, 0x60), (0x1100, 0x100), (0x1200, 0x80), (0x13A0, 0x60), (0x16A0, 0x60),
    (0x1780, 0x80), (0x1800, 0xB0), (0x1AB0, 0x50), (0x1C80, 0x40), (0x1D00, 0x80), (0x1DC0, 0x40), (0x1E00, 0x100), (0x1F00, 0x100),
    (0x2000, 0x70), (0x2070, 0x30), (0x20A0, 0x30), (0x20D0, 0x30), (0x2100, 0x90), (0x2190, 0x70), (0x2200, 0x100), (0x2300, 0x100),
    (0x2460, 0xA0), (0x2500, 0x100), (0x2600, 0x100), (0x2700, 0xC0), (0x2800, 0x100), (0x2C00, 0x80), (0x2E00, 0x60), (0x3000, 0x40),
    (0x3040, 0xC0), (0x3100, 0x30), (0x3130, 0x60), (0x3200, 0x100), (0x3400, 0x100), (0x4E00, 0x1000), (0xA000, 0x100), (0xA640, 0x60),
    (0xA720, 0xE0), (0xAB30, 0x90), (0xAC00, 0x2000), (0xE000, 0x100), (0xF900, 0x200), (0xFB00, 0x50), (0xFB50, 0x100), (0xFE00, 0x30),
    (0xFE70, 0x90), (0xFF00, 0xF0), (0xFFF0, 0x10), (0x10000, 0x80), (0x10330, 0x20), (0x10400, 0x50), (0x10570, 0x50), (0x10D40, 0x40),
    (0x11000, 0x80), (0x11F00, 0x60), (0x12000, 0x100), (0x13000, 0x100), (0x16D40, 0x40), (0x1B000, 0x40), (0x1CCF0, 0x10),
    (0x1D100, 0x80), (0x1D400, 0x100), (0x1D7C0, 0x40), (0x1DF00, 0x30), (0x1E030, 0x40), (0x1E4D0, 0x30), (0x1E5D0, 0x30), (0x1E900, 0x60),
    (0x1F000, 0x100), (0x1F100, 0x100), (0x1F300, 0x100), (0x1F600, 0x80), (0x1F900, 0x100), (0x1FA70, 0x90), (0x1FBF0, 0x10),
    (0x20000, 0x100), (0x2F800, 0x100), (0x30000, 0x100), (0x31350, 0x50), (0xE0000, 0x80), (0xF0000, 0x20), (0x10FFF0, 0x10),
]


class Draw:
    """splitmix64: the same numbers in every version of Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return (z ^ (z >> 31)) % n

    def one(self, of):
        return of[self.below(len(of))]

    def some(self, of, least, most):
        return [self.one(of) for _ in range(least + self.below(most - least + 1))]


def sentence(draw, language, most=8):
    words, between, ends = LANGUAGES[language]
    words = [word.capitalize() if draw.below(9) == 0 else word.upper() if draw.below(15) == 0 else word
             for word in draw.some(words.split(" "), 1, most)]
    comma = draw.one(["", "", "", ",", "、" if between == "" else " –", "…"])
    text = between.join(words) + comma + draw.one([draw.one(ends), "", ""])
    return draw.one(["", "", "", " ", "\n", "“", "("]) + text + draw.one(["", "", "", " ", "\n", "”", ")"])


def mixed(draw):
    sentences = [sentence(draw, draw.one(list(LANGUAGES)), 4) for _ in range(2 + draw.below(3))]
    return draw.one(["", " ", "\n", " / "]).join(sentences)


def emoji(draw):
    return draw.one(["", "", " ", "\u200d", "\ufe0f", "a"]).join(draw.some(EMOJI, 1, 6)) + draw.one(["", "", "!", " ok", "\n"])


def code(draw):
    pieces = [
        draw.one(CODE).format(a=draw.one(NAMES), b=draw.one(NAMES), n=draw.below(10 ** (1 + draw.below(6))), t=draw.one(INDENTS))
        for _ in range(1 + draw.below(2))
    ]
    return "".join(pieces)


def blanks(draw):
    word = ["", "a", "The", "x1", ".", "!?", "'s", "é", "中", "7", "👍", "_", "'LL", "B's"]
    pieces = [draw.one(BLANKS) * (1 + draw.below(draw.one([1, 2, 4, 20]))) + draw.one(word) for _ in range(1 + draw.below(6))]
    return draw.one(word) + "".join(pieces)


def combining(draw):
    if draw.below(3) == 0:
        form = draw.one(["NFD", "NFKD", "NFC"])
        return unicodedata.normalize(form, sentence(draw, draw.one(["Vietnamese", "Korean", "Yoruba", "Greek", "Hebrew", "Japanese", "Hindi"])))
    letters = (draw.one(BASES) + "".join(draw.some(MARKS, 0, draw.one([1, 2, 3, 8]))) for _ in range(1 + draw.below(8)))
    return draw.one(["", "", " ", "\u200c"]).join(letters)


def digits(draw):
    signs = draw.one(DIGITS) if draw.below(3) == 0 else DIGITS[0]
    number = lambda most: "".join(draw.some(signs, 1, most))
    pieces = [draw.one(NUMBERS).format(a=number(12), b=number(4), c=number(2)) for _ in range(1 + draw.below(3))]
    return draw.one(["", " ", "In ", "(", "=", "#"]) + draw.one([" ", "", "; ", "\n", "×"]).join(pieces)


def specials(draw):
    pieces = []
    for _ in range(1 + draw.below(4)):
        token = draw.one(SPECIALS)
        kind = draw.below(8)
        if kind == 0:
            at = draw.below(len(token) + 1)
            token = token[:at] + draw.one([" ", "\u200b", "|", "é", "\n"]) + token[at:]
        elif kind == 1:
            token = token.upper()
        elif kind == 2:
            token = token[1:] if draw.below(2) else token[:-1]
        pieces.append(token)
    text = draw.one(["", "", " ", "\n", "user\n", "a"]).join(pieces)
    return draw.one(["", "", " ", "  ", "The"]) + text + draw.one(["", "", " ", "\n\n", "x"])


def right_to_left(draw):
    inner = [draw.one([sentence(draw, draw.one(RIGHT_TO_LEFT), 4), draw.one(BIDI_MARKS), draw.one(["abc", "123", "(x)", "١٢٣", ":-)"])])
             for _ in range(2 + draw.below(4))]
    return draw.one(["", " ", "\u200f"]).join(inner)


def code_points(draw):
    pieces = []
    for _ in range(1 + draw.below(3)):
        first, count = draw.one(BLOCKS)
        pieces.append("".join(chr(first + draw.below(count)) for _ in range(1 + draw.below(6))))
    return draw.one(["", " ", "a"]).join(pieces)


def long(draw):
    if draw.below(3) == 0:
        return draw.one(["a", " ", "\n", "ab", "=", "-", "好", "の", "!", "1", "👍", "é", "\t", "ー", "haha", "\u0301"]) * (20 + draw.below(120))
    makers = [mixed, emoji, code, blanks, combining, digits, specials, right_to_left, code_points]
    return draw.one(["", " ", "\n\n"]).join(draw.one(makers)(draw) for _ in range(3 + draw.below(4)))


def texts():
    """3,000 different texts."""
    draw = Draw(20240726)
    makers = [(maker, share) for maker, share in (
        (mixed, 150), (emoji, 200), (code, 250), (blanks, 300), (combining, 280), (digits, 260), (specials, 400), (right_to_left, 120),
        (code_points, 350), (long, 60),
    )]
    shares = [(lambda draw, name=name: sentence(draw, name), 11) for name in LANGUAGES] + makers
    found = {"": None}
    for maker, share in shares[:-1] + [(shares[-1][0], COUNT)]:
        last = min(COUNT, len(found) + share)
        while len(found) < last:
            found[maker(draw)] = None
    return list(found)


if __name__ == "__main__":
    made = texts()
    print(len(made), sum(len(text.encode()) for text in made), sum(share for share in map(len, made)))
