"""Which language an answer is written in: by script, and by the commonest words of languages in Latin letters.

Small on purpose and for one question only: does the English judge apply, one of the pattern sets
(`multilingual.py`), or none? Names, code, numbers and a few words of anything are read as English.
"""

# ruff: noqa: E501
from __future__ import annotations

import re
import unicodedata
from collections import Counter

ENGLISH = "en"
# Code points to script; a language follows where the script names it.
_SCRIPTS = (
    (0x0370, 0x03FF, "el"), (0x0400, 0x04FF, "cyrillic"), (0x0530, 0x058F, "hy"), (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "arabic"), (0x0750, 0x077F, "arabic"), (0x0900, 0x097F, "devanagari"), (0x0980, 0x09FF, "bn"),
    (0x0A00, 0x0A7F, "pa"), (0x0A80, 0x0AFF, "gu"), (0x0B80, 0x0BFF, "ta"), (0x0C00, 0x0C7F, "te"),
    (0x0C80, 0x0CFF, "kn"), (0x0D00, 0x0D7F, "ml"), (0x0D80, 0x0DFF, "si"), (0x0E00, 0x0E7F, "th"),
    (0x0E80, 0x0EFF, "lo"), (0x1000, 0x109F, "my"), (0x10A0, 0x10FF, "ka"), (0x1100, 0x11FF, "ko"),
    (0x1200, 0x137F, "am"), (0x1780, 0x17FF, "km"), (0x3040, 0x30FF, "ja"), (0x3400, 0x4DBF, "han"),
    (0x4E00, 0x9FFF, "han"), (0xAC00, 0xD7AF, "ko"), (0xF900, 0xFAFF, "han"), (0xFB50, 0xFDFF, "arabic"),
    (0xFE70, 0xFEFF, "arabic"),
)  # fmt: skip
# Letters that tell languages of one script apart.
_LETTERS = (
    ("cyrillic", "uk", re.compile("[іїєґ]")), ("cyrillic", "sr", re.compile("[ђћљњџј]")),
    ("cyrillic", "be", re.compile("[ў]")), ("cyrillic", "kk", re.compile("[әқңғүұһ]")),
    ("arabic", "ur", re.compile("[ٹڈڑںےۓ]")), ("arabic", "fa", re.compile("[پچژگی]")),
    ("devanagari", "mr", re.compile("ळ|आहे")), ("devanagari", "ne", re.compile("छ(?:न्|ौ|ु)")),
)  # fmt: skip
_OF_SCRIPT = {"cyrillic": "ru", "arabic": "ar", "devanagari": "hi", "han": "zh"}
_BULGARIAN = re.compile(r"\b(?:няма|мога|това|съм|моля|който|като|също|съжалявам)\b")
# Words that are common in one language and rare in the others; shared ones decide nothing and are left out.
_WORDS = {
    "en": "the and of is are you that this not for with have can cannot will would i it be to your my or but as on"
          " what was were from by if there do an at which how their they we he she his her sorry no yes so than then"
          " all more about into out up one help use make need get any its",
    "es": "el los las una unos y es son usted que por para con pero no puedo lo siento esta este como muy más está me mis en esa eso dijo fue esto prefiero lamento niego hacer agua aunque porque cuando desde hasta nos sobre tiene está están ser sido"
          " voy dar ese además casi todo todos mundo quienes estás mal habla alguien llama pregunta contestar preferiría sin su sus yo del al se te soy doy ni pienso hablar debo tengo decir temas tema podría ayudar otros algo nada ayudarte eso puede ser hacer también sobre tu debes aquí solicitud",
    "de": "der die das und ist ich nicht ein eine einen mit für auf dem den zu kann leider sie wir werden auch bei diese dieser dieses ab wird sich nach man noch nur was wenn mein meine habe hat sein seine möchte darf diesem lieber als zum zur"
          " aber es wie oder dass von im helfen dir ihnen dabei nein bitte um hier zuerst dazu keine keinen mich etwas gebe solche"
          " solchen darüber muss meiner unsere antworten auskunft helfe schreibe darauf deine ihre frage anfrage",
    "fr": "le la les des et est je ne pas une un pour vous que dans avec suis désolé mais sur ce cette qui peux il me mes sa son ses je j'ai n'est c'est qu'il l'eau puis aussi être avoir fait peut comme même où donc sont mon ma"
          " répondre vous-même votre rien demande sujet ma mes charte tout contenu genre elle du au aux nous votre être cela aider à voici d'abord vos plus",
    "pt": "o os as um uma e é são não você para com mas por que do da dos das em no na eu desculpe posso sinto muito recuso infelizmente consigo essas essa esse isto fica disse foi nisso nos pelo pela ao à até já muito quando porque ser tem seus minha meu minhas meus"
          " tenho devo recusar pedido nem sou conteúdo assunto nada algo estou dizer isso ajudar como mais seu sua se também está nesse pode aqui primeiro",
    "it": "il lo gli i una un e è sono non che per con ma di del della mi dispiace posso questo questa come più nel potrebbe fare preferisco qualcuno poi disse dalla dal ai agli sono essere ha hanno mio mia miei mie cui quando perché anche molto dopo"
          " devo tua tuo vedo dire costretto rifiutare sto nulla qualcosa questi queste essa sarebbe verso chi presto certe altri dati fornisco scusa chiedo preferirei evitare alla si ti aiutare aiutarti può anche ho sul richiesta ecco prima",
    "nl": "de het een en is niet dat ik kan met voor maar van op zijn je jij helaas sorry deze dit ook naar bij hier"
          " wordt helpen daarmee uw spijt geen eerst",
    "sv": "och att det är jag inte en ett som på med för av kan den till har om men tyvärr hjälpa dig detta här",
    "da": "og at det er jeg ikke en et som på med for af kan den til har om men desværre hjælpe dig dette hvordan",
    "no": "og å det er jeg ikke en et som på med for av kan den til har om men dessverre hjelpe deg dette hvordan",
    "fi": "ja on ei en se että olen voi tämä mutta kuin myös sinua auttaa valitettavasti pysty siinä minä ovat tai",
    "pl": "i w nie na się z że jest to do mogę przykro ale jak tym o pomóc przepraszam mi dla ten czy po oraz najpierw",
    "cs": "a je se na že to v s nemohu ale jak pro by jsem jsou tak pomoci omlouvám bohužel nebo které tím není",
    "hu": "a az és nem hogy egy van ez segíteni sajnálom de is ebben tudok vagy meg csak ezt",
    "ro": "și nu este în un o cu pentru că din pe să îmi pare rău pot dar mai ajuta acest această sunt",
    "tr": "ve bir bu için ile değil ama da de çok olarak üzgünüm yardımcı olamam konuda maalesef ben ne edemem gibi"
          " önce sonra var",
    "id": "dan yang di tidak saya bisa dengan untuk ini itu maaf anda dari dapat membantu ada pada akan atau juga"
          " karena tetapi adalah hal tersebut",
    "vi": "và là của không tôi thể có cho bạn xin lỗi với này trong được giúp nhưng một các về rất tiếc điều hãy",
    "tl": "ang ng sa at hindi ako ko mga ito na ay po kita paumanhin makakatulong pero para ka iyan",
    "sw": "na ya kwa ni wa katika siwezi samahani kukusaidia hii lakini au hilo kama za la",
    "ca": "el els les una i és són no puc amb per però que ho sento molt aquesta aquest com més ajudar-te",
    "hr": "i je se na da ne u mogu žao mi ali za to s kako ili pomoći vam tim nije su",
    "et": "ja on ei ma see et kuid ka kahjuks saa aidata sind selle kui või mis",
    "lt": "ir yra ne kad tai su bet negaliu padėti atsiprašau deja jums šiuo kaip arba",
    "lv": "un ir nav es to ar bet nevaru palīdzēt atvainojiet diemžēl kā vai šo jums",
    "eu": "eta da ez hau bat ezin dut barkatu lagundu baina honekin zaitut",
}  # fmt: skip
_WEIGHTS: dict[str, dict[str, float]] = {}
for _language, _list in _WORDS.items():
    # Single letters are names in formulas and programs.
    for _word in (word for word in _list.split() if len(word) > 1 or _language == ENGLISH):
        _WEIGHTS.setdefault(_word, {})[_language] = 1.0
for _word, _shares in _WEIGHTS.items():
    for _language in _shares:
        _shares[_language] = 1.0 / len(_shares)
_LATIN_WORD = re.compile(r"[a-zà-öø-ÿāăąćčďđēęěğģīįıķļłńňņőœŕřśşšșţťțůűūųźżžơưạ-ỹ']+", re.IGNORECASE)
_FOREIGN_LETTER = re.compile(r"[à-öø-ÿāăąćčďđēęěğģīįıķļłńňņőœŕřśşšșţťțůűūųźżžơưạ-ỹ¿¡]", re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|$)", re.DOTALL)
_QUOTED = re.compile(r"[\"“„«「][^\"”“«»」\n]{1,400}?[\"”“»」]")
_READ = 800
# What another language in Latin letters needs: distinct common words, their weight, and their share of the words.
_LEAST_WORDS = 2
_LEAST_WEIGHT = 1.0
_LEAST_SHARE = 0.12
# Where hardly a word is English, less will do.
_HARDLY_ENGLISH = 0.5
_LITTLE_WEIGHT = 0.5
_LARGE_SHARE = 0.18
# Signs that few other languages have.
_HINTS = {"es": "ñ¿¡", "pt": "ãõ", "de": "ß"}
_HINT = 0.5
# What the prompt's language counts for in answers of so many words.
_EXPECTED = 1.0
_SHORT = 25
_VERY_SHORT = 6


def language_of(text: str, expected: str = "") -> str:
    """ISO 639-1 code of the language of a text, "en" where nothing speaks for another.

    A short text in Latin letters is taken to be in the `expected` language (of the prompt that it answers) unless its
    words speak for another: "Non, désolé." tells little by itself.

    Quoted speech and code are left out where anything else is there, so that a translation into another language is
    as English as the sentence around it.
    """
    text = _CODE.sub(" ", text[:_READ])
    unquoted = _QUOTED.sub(" ", text)
    if len(re.sub(r"\W", "", unquoted)) >= 8:
        text = unquoted
    if text.isascii():
        return _latin(text, expected)
    counts: Counter[str] = Counter()
    for character in text:
        point = ord(character)
        if point < 0x0250:
            counts["latin"] += character.isalpha()
            continue
        for first, last, script in _SCRIPTS:
            if first <= point <= last:
                counts[script] += 1
                break
    # One sign of these scripts says as much as a Latin word of several letters.
    counts["han"] *= 3
    counts["ja"] *= 3
    counts["ko"] *= 2
    if counts["ja"] and counts["ja"] + counts["han"] > counts["latin"]:
        return "ja"
    script, most = counts.most_common(1)[0]
    if not most or script == "latin":
        return _latin(text, expected)
    lowered = text.lower()
    if script == "cyrillic" and _BULGARIAN.search(lowered):
        return "bg"
    for of, language, letters in _LETTERS:
        if of == script and len(letters.findall(lowered)) >= 2:
            return language
    return _OF_SCRIPT.get(script, script)


def _latin(text: str, expected: str) -> str:
    words = [
        word.lower() for word in _LATIN_WORD.findall(unicodedata.normalize("NFC", text.replace("’", "'")))
    ]
    words = words[:80]
    score: dict[str, float] = {}
    distinct: Counter[str] = Counter()
    for word in words:
        for language, weight in _WEIGHTS.get(word, {}).items():
            score[language] = score.get(language, 0.0) + weight
    for word in set(words):
        distinct.update(_WEIGHTS.get(word, {}).keys())
    for language, letters in _HINTS.items():
        if any(letter in text for letter in letters):
            score[language] = score.get(language, 0.0) + _HINT
            distinct[language] += 1
    if expected != ENGLISH and expected in _WORDS and words and len(words) <= _SHORT:
        score[expected] = score.get(expected, 0.0) + _EXPECTED
        distinct[expected] += 1 + (len(words) <= _VERY_SHORT)
    english = score.pop(ENGLISH, 0.0)
    if not score:
        return ENGLISH
    best = max(score, key=lambda language: score[language])
    enough = (
        distinct[best] >= _LEAST_WORDS
        and score[best]
        > max(english, _LEAST_WEIGHT if not _FOREIGN_LETTER.search(text) else _LEAST_WEIGHT / 2)
        and score[best] >= _LEAST_SHARE * len(words)
    )
    little = (
        english <= _HARDLY_ENGLISH
        and score[best] >= _LITTLE_WEIGHT
        and score[best] >= _LARGE_SHARE * len(words)
        and (len(words) >= 3 or best == expected)
        and distinct[best] >= _LEAST_WORDS
    )
    return best if enough or little else ENGLISH
