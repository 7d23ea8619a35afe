"""A small English grammar that generates minimal pairs: two sentences that differ in one word, which is wrong in one.

The grammar tests three rules, a third of the time with misleading words in between. A verb agrees with its subject
("the king near the girls is old"). A reflexive agrees with its subject ("the king that saw the girls hid himself").
Polarity: any and ever occur only in the scope of no, few or not, which is the rest of the same clause; some and already
occur only outside ("the king that saw no girls has already returned"). All choices that decide the label have equal
chances, so that no single word reveals the label.

Source: Warstadt et al., "BLiMP: The Benchmark of Linguistic Minimal Pairs for English", TACL 2020, arXiv 1912.00582.
Differs: one small grammar instead of 67. It rejects some and already in scope, although English allows a second
reading; otherwise no and few would occur more often in acceptable sentences.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, NamedTuple

__all__ = ["Pair", "Sentence", "grammar_words", "minimal_pairs", "sentences"]


class Sentence(NamedTuple):
    """One sentence and its label."""

    text: str
    """Lower-case words and a final period, separated by blanks."""
    label: int
    """1 if acceptable, 0 if not."""


class Pair(NamedTuple):
    """Two sentences that differ in one word."""

    acceptable: str
    """The sentence that follows the rules."""
    unacceptable: str
    """The same sentence with one wrong word."""


class _Forms(NamedTuple):
    singular: str
    plural: str


_Sort = Literal["actor", "thing"]


def _forms(text: str) -> tuple[_Forms, ...]:
    return tuple(_Forms(*word.split("/")) for word in text.split())


_MEN = _forms("man/men king/kings boy/boys brother/brothers")
_WOMEN = _forms("woman/women queen/queens girl/girls sister/sisters")
_MACHINES = _forms("robot/robots machine/machines rocket/rockets train/trains")
_PEOPLE = _forms("student/students teacher/teachers doctor/doctors lawyer/lawyers")
_THINGS = _forms("book/books letter/letters picture/pictures map/maps")
_ACTORS = _MEN + _WOMEN + _MACHINES + _PEOPLE

_DETERMINERS = (("the", "the", "this", "every"), ("the", "the", "these", "many"))
_REFLEXIVES = ("himself", "herself", "itself", "themselves")
_LICENSORS = (("no",), ("no", "few"))
_ADVERB_ITEMS = ("already", "ever")
_OBJECT_ITEMS = ("some", "any")

_BE = _forms("is/are was/were")
_HAVE = _Forms("has", "have")
_WAIT = _forms("waits/wait moves/move works/work returns/return stops/stop arrives/arrive")
_WAITED = ("waited", "moved", "worked", "returned", "stopped", "arrived")
_FOUND = ("found", "lost", "bought", "sold", "kept", "made")
_SAW = ("saw", "liked", "helped", "followed", "called", "met")
_HID = ("hid", "saved", "cleaned", "protected", "changed", "hurt")
_ADJECTIVES = ("old", "new", "small", "big", "strange", "famous", "clean", "lovely")
_PREPOSITIONS = ("near", "behind", "beside", "with")
_ADVERBS = ("today", "here", "again", "alone", "outside", "now")


def minimal_pairs(count: int, *, seed: int) -> list[Pair]:
    """Return `count` distinct pairs: half on subject-verb agreement, a quarter each on reflexives and polarity.

    Args:
        count: number of pairs, far fewer than the millions that the grammar can generate.
        seed: seed of all choices.
    """
    makers: tuple[Callable[[Random], Pair], ...] = (_agreement, _reflexive, _agreement, _polarity)
    random = Random(seed)
    pairs: list[Pair] = []
    seen: set[str] = set()
    while len(pairs) < count:
        pair = makers[len(pairs) % len(makers)](random)
        if seen.isdisjoint(pair):
            seen.update(pair)
            pairs.append(pair)
    random.shuffle(pairs)
    return pairs


def sentences(count: int, *, seed: int) -> list[Sentence]:
    """Return `count` distinct sentences, each acceptable one followed by its unacceptable twin.

    Args:
        count: number of sentences, even.
        seed: seed of all choices.
    """
    return [
        Sentence(text, label)
        for pair in minimal_pairs(count // 2, seed=seed)
        for text, label in ((pair.acceptable, 1), (pair.unacceptable, 0))
    ]


def grammar_words() -> tuple[str, ...]:
    """Return all words that can occur, including the period, in sorted order."""
    tables: tuple[Sequence[Sequence[str]], ...] = (_ACTORS, _THINGS, _DETERMINERS, _LICENSORS, _BE, (_HAVE,), _WAIT)
    items = (_REFLEXIVES, _ADVERB_ITEMS, _OBJECT_ITEMS)
    lists = (_WAITED, _FOUND, _SAW, _HID, _ADJECTIVES, _PREPOSITIONS, _ADVERBS)
    groups = [*(words for table in tables for words in table), *items, *lists]
    return tuple(sorted({".", "that", "not", "had"}.union(*groups)))


def _agreement(random: Random) -> Pair:
    number = random.randrange(2)
    sort: _Sort = "thing" if random.random() < 0.2 else "actor"
    subject = _subject(random, random.choice(_ACTORS if sort == "actor" else _THINGS), number, sort=sort)
    kind = random.randrange(3) if sort == "actor" else 0
    if kind == 0:
        verb, rest = random.choice(_BE), random.choice(_ADJECTIVES)
    elif kind == 1:
        verb, rest = _HAVE, random.choice(_WAITED)
    else:
        verb, rest = random.choice(_WAIT), ""
    return _pair(random, subject, verb[number], verb[1 - number], rest)


def _reflexive(random: Random) -> Pair:
    right, wrong = random.sample(range(4), 2)
    subject = _subject(random, _of_class(random, right), right // 3, distractor=_of_class(random, wrong)[wrong // 3])
    return _pair(random, f"{subject} {random.choice(_HID)}", _REFLEXIVES[right], _REFLEXIVES[wrong], "")


def _polarity(random: Random) -> Pair:
    in_scope, number = random.randrange(2), random.randrange(2)
    negated = in_scope and random.random() < 0.4
    licensed = in_scope and not negated
    determiner = random.choice((_LICENSORS if licensed else _DETERMINERS)[number])
    clause = f"that {_negative_clause(random)} " if random.random() < 0.3 else ""
    start = f"{determiner} {random.choice(_ACTORS)[number]} {clause}{_HAVE[number]}{' not' if negated else ''}"
    if random.randrange(2):
        return _pair(random, start, _ADVERB_ITEMS[in_scope], _ADVERB_ITEMS[1 - in_scope], random.choice(_WAITED))
    return _pair(
        random,
        f"{start} {random.choice(_FOUND)}",
        _OBJECT_ITEMS[in_scope],
        _OBJECT_ITEMS[1 - in_scope],
        random.choice(_THINGS).plural,
    )


def _negative_clause(random: Random) -> str:
    if random.random() < 0.3:
        return f"had not {random.choice(_WAITED)}"
    number = random.randrange(2)
    determiner = random.choice(random.choice((_LICENSORS, _LICENSORS, _DETERMINERS))[number])
    return f"{random.choice(_SAW)} {determiner} {random.choice(_ACTORS)[number]}"


def _of_class(random: Random, reflexive: int) -> _Forms:
    """Return a noun whose reflexive has this index in `_REFLEXIVES`; the last one takes the plural of any noun."""
    return random.choice((_MEN, _WOMEN, _MACHINES, _MEN + _WOMEN + _MACHINES)[reflexive])


def _subject(random: Random, noun: _Forms, number: int, *, distractor: str | None = None, sort: _Sort = "actor") -> str:
    determiner = random.choice(_DETERMINERS[number])
    modified = random.random() < 0.35
    adjective = f"{random.choice(_ADJECTIVES)} " if not modified or random.random() < 0.2 else ""
    head = f"{determiner} {adjective}{noun[number]}"
    if not modified:
        return head
    if distractor is None:
        distractor = random.choice(_ACTORS)[1 - number if random.random() < 0.75 else number]
    return f"{head} {_modifier(random, f'the {distractor}', sort=sort)}"


def _modifier(random: Random, distractor: str, *, sort: _Sort) -> str:
    kind = random.choice((0, 1, 2) if sort == "actor" else (0, 2))
    if kind == 2:
        return f"that {distractor} {random.choice(_SAW if sort == 'actor' else _FOUND)}"
    start = random.choice(_PREPOSITIONS) if kind == 0 else f"that {random.choice(_SAW)}"
    if random.random() < 0.75:
        return f"{start} {distractor}"
    thing = random.choice(_THINGS)[random.randrange(2)]
    return f"{start} {distractor} {random.choice(_PREPOSITIONS)} the {thing}"


def _pair(random: Random, start: str, right: str, wrong: str, rest: str) -> Pair:
    end = " ".join(word for word in (rest, random.choice(_ADVERBS), ".") if word)
    return Pair(f"{start} {right} {end}", f"{start} {wrong} {end}")
