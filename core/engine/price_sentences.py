"""Prices that a prompt tells in one sentence, each in a sentence of its own.

People write `A haircut is $20, a shave is $12 and color starts at $60.` A small model that was trained on a statement a
sentence takes all of it for one, and answers with the wrong half.
"""

import re

_CURRENCY = r"\b(?:dollars?|euros?|pounds?|cents?|penny|pence|francs?|yen|rupees?|coins?)\b"
_COSTS = (
    r"\b(?:is|are|costs?|pays?|goes for|go for|runs?|comes? to|starts? at|sells? for|we (?:charge|ask|take|want))\b"
)
_PRICE = re.compile(rf"{_COSTS}.*{_CURRENCY}", re.IGNORECASE)
_NO_SUBJECT = (
    r"(?:and|or|but|plus|so|for|with|without|from|to|until|at|in|on|by|per|each|if|when|while|as|than|which|who|that"
    r"|includes?|including|takes?|has|have|can|must|will|depending|only|not|no"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy"
    r"|eighty|ninety|hundred|thousand)"
)
"""What begins no statement of its own: the cents of a price, or what is said of it further."""
_NEXT = re.compile(
    rf"(?:,|;|,? and|,? but|,? while) (?!{_NO_SUBJECT}\b)(?!{_COSTS})(?=.*?{_COSTS}.*?{_CURRENCY})", re.IGNORECASE
)
_SAME_SUBJECT = re.compile(
    r"^(\s*\w[^,;:]*?) (?:is|are|has|have|costs?|takes?|lasts?) .*?(,? and) (?:costs?|takes?|lasts?) ", re.IGNORECASE
)
"""A statement that goes on with another verb about the same thing: `The plan has ten channels and costs ...`."""
_SENTENCE = re.compile(r"[^.!?\n]+")
_LONGEST = 400
"""Characters of a sentence that is looked at: what is longer is none that somebody would say."""


def one_price_a_sentence(text: str) -> str:
    """A text whose numbers are in words, every price of it in a sentence of its own where it has a verb of its own.

    `A tune up is sixty dollars and a flat fix is eighteen.` stays as it is, since what has no currency may be anything.
    """
    return _SENTENCE.sub(lambda found: _apart(found[0]), text)


def _apart(sentence: str) -> str:
    if len(sentence) > _LONGEST or not _PRICE.search(sentence):
        return sentence
    return ". ".join(_with_subject(part) for part in _priced(sentence))


def _priced(sentence: str) -> list[str]:
    """The sentence where another price begins with a subject of its own."""
    parts, begin = [], 0
    for following in _NEXT.finditer(sentence):
        if _PRICE.search(sentence, begin, following.start()):
            parts.append(_capital(sentence[begin : following.start()]) if parts else sentence[: following.start()])
            begin = following.end()
    return [*parts, _capital(sentence[begin:]) if parts else sentence]


def _with_subject(statement: str) -> str:
    """A statement with two verbs as two, each with the subject."""
    found = _SAME_SUBJECT.search(statement)
    if found is None or not _PRICE.search(statement):
        return statement
    return f"{statement[: found.start(2)]}. {_capital(found[1].strip())}{statement[found.end(2) :]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
