"""The metrics a second time: slow, straight from their definitions, sharing no code with the package.

Counting is literal, arithmetic is exact where the definition allows it, and characters are walked one by one
where the package uses regular expressions, translation tables, closed forms or a library.
"""

import ast
from fractions import Fraction

LISTED_MARKS = ';/[]"{}()=+\\_-><@`,?!'
ZERO_TO_TEN = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WITH_ONE_APOSTROPHE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
    how'll how's I'm I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've
    o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
    something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's
    who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
WITH_MORE = """
    couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've
    someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
    y'all'd've
"""


def contraction_table():
    """Misspelling -> spelling, with the entries that change nothing."""
    table = {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}
    table |= {"ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at"}
    for spelling in WITH_ONE_APOSTROPHE.split():
        table[spelling.replace("'", "")] = spelling
    for spelling in WITH_MORE.split():
        parts = spelling.split("'")
        for left_out in range(len(parts) - 1):
            glued = [*parts[:left_out], parts[left_out] + parts[left_out + 1], *parts[left_out + 2 :]]
            table["'".join(glued)] = spelling
    return table


CONTRACTIONS = contraction_table()


def vqa_accuracy_official(prediction, references):
    prediction, *references = [one_line(text) for text in [prediction, *references]]
    if any(reference != references[0] for reference in references):
        prediction, *references = [steps_three_to_five(text) for text in [prediction, *references]]
    return mean_over_annotators(prediction, references)


def textvqa_accuracy(prediction, references):
    prediction, *references = [evalai(text) for text in [prediction, *references]]
    return mean_over_annotators(prediction, references)


def one_line(text):
    return "".join(" " if character in "\n\t" else character for character in text).strip()


def evalai(text):
    text = "".join(character for character in text.lower() if character not in ",?")
    return steps_three_to_five(one_line(" 's".join(text.split("'s")).strip()))


def steps_three_to_five(text):
    windows = [text[at : at + 3] for at in range(len(text) - 2)]
    thousands = any(left.isdecimal() and mark == "," and right.isdecimal() for left, mark, right in windows)
    edited = text
    for mark in LISTED_MARKS:
        deleted = thousands or mark + " " in text or " " + mark in text
        edited = edited.replace(mark, "" if deleted else " ")
    return words(without_periods(edited))


def without_periods(text):
    kept, deleted = "", 0
    for at, character in enumerate(text):
        if character == "." and not text[at + 1 : at + 2].isdecimal() and deleted < 32:
            deleted += 1
        else:
            kept += character
    return kept


def words(text):
    kept = []
    for word in text.lower().split():
        if word == "none":
            word = "zero"
        if word in ZERO_TO_TEN:
            word = str(ZERO_TO_TEN.index(word))
        if word not in ("a", "an", "the"):
            kept.append(CONTRACTIONS.get(word, word))
    return " ".join(kept)


def mean_over_annotators(prediction, references):
    total = Fraction(0)
    for left_out in range(len(references)):
        equal = sum(1 for i, text in enumerate(references) if i != left_out and text == prediction)
        total += min(Fraction(1), Fraction(equal, 3))
    return float(total / len(references))


def anls(prediction, references):
    best = Fraction(0)
    for reference in references:
        one, other = prediction.lower().strip(), reference.lower().strip()
        longest = max(len(one), len(other))
        similarity = 1 - Fraction(edits(one, other), longest) if longest else Fraction(1)
        if similarity >= Fraction(1, 2) and similarity > best:
            best = similarity
    return float(best)


def edits(one, other):
    """Levenshtein distance by the textbook table."""
    table = [[max(i, j) for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            replaced = table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, replaced)
    return table[-1][-1]


def chartqa_relaxed_accuracy(prediction, references):
    return float(any(relaxed(prediction, target) for target in references))


def relaxed(prediction, target):
    p, t = number(prediction), number(target)
    if p is not None and t is not None and t != 0:
        return abs(p - t) / abs(t) <= 0.05
    return prediction.lower() == target.lower()


def number(text):
    digits = text
    while digits.endswith("%"):
        digits = digits[:-1]
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if digits == text else value / 100.0


def mpa_substring(prediction, references):
    most = max(references.count(reference) for reference in references)
    truth = next(reference for reference in references if references.count(reference) == most)
    return float(letters(truth) in letters(prediction))


def letters(text):
    return "".join(character for character in (text or "").lower() if character.isalnum() or character == "_")


def docvqa_anls(prediction, references):
    best = Fraction(0)
    for reference in references:
        longest = max(len(prediction.upper()), len(reference.upper()))
        distance = edits(" ".join(prediction.lower().split()), " ".join(reference.lower().split()))
        similarity = 1 - Fraction(distance, longest) if longest else Fraction(1)
        if similarity >= Fraction(1, 2):
            best = max(best, similarity)
    return float(best)


def ocrbench_accuracy(prediction, references, exact=()):
    def compared(text):
        if any(exact):
            return "".join(character for character in text.strip() if character not in "\n ")
        return "".join(" " if character == "\n" else character for character in text.lower().strip())

    said = compared(prediction)
    return float(any(said[at:].startswith(compared(each)) for each in references for at in range(len(said) + 1)))


CHOSEN_BY = """the answer is|answer is|the correct answer is|correct answer is|the best answer is|best answer is
the correct option is|correct option is|the best option is|best option is|the choice is|choice is|the correct choice is
correct choice is|i choose|i select|i pick|my answer is|my choice is|옵션|정답은|답은|답:|答案是|答案为|选|答えは"""


def realworldqa_accuracy(prediction, references):
    said = prediction.lower().strip()
    while said.endswith("."):
        said = said[:-1]
    for reference in references:
        wanted = reference.strip()
        letter = len(wanted) == 1 and wanted.upper() in "ABCD"
        if chosen_letter(prediction) == wanted.upper() if letter else said == wanted.lower():
            return 1.0
    return 0.0


def chosen_letter(prediction):
    """Every capital of the four with all that it is, the best of them."""
    text = prediction.strip()
    for mark in """,.!?;:'\"""":
        text = without_ends(text, mark)
    padded, lower = f" {text} ", f" {text} ".lower()
    found = []
    ranks = {".": 5, ":": 4, ")": 3, " ": 2}
    bare = text.strip()
    for at, letter in enumerate(padded):
        if letter not in "ABCD":
            continue
        found += [(0, at, letter)]
        if padded[at + 1] in ranks:
            found += [(ranks[padded[at + 1]], at, letter)]
        if padded[at - 1] == "(" and padded[at + 1] == ")":
            found += [(6, at - 1, letter)]
        for phrase in CHOSEN_BY.replace("\n", "|").split("|"):
            behind = lower.find(phrase) + len(phrase)
            if phrase in lower and at >= behind and letter not in padded[behind:at]:
                found += [(7, at, letter)]
    if bare and bare[0] in "ABCD" and not bare[1:2].isalpha():
        found += [(10, 0, bare[0])]
    if bare and bare[-1] in "ABCD" and not bare[-2:-1].isalpha():
        found += [(9, len(padded), bare[-1])]
    return max(found)[2] if found else ""


def chartqapro_relaxed_accuracy(prediction, references, exact=()):
    return float(max(relaxed_items(prediction, reference, list(exact)) for reference in references))


def relaxed_items(prediction, target, exact):
    prediction, target = (without_ends(without_ends(text, "."), "\n") for text in (prediction, target))
    said, wanted = python_list(prediction) or [prediction], python_list(words_in_quotes(target)) or [target]
    while exact and len(exact) < len(wanted):
        exact = exact + exact
    total = Fraction(0)
    for at in range(min(len(said), len(wanted))):
        if exact and exact[at]:
            total += said[at].strip().lower() == wanted[at].strip().lower()
        else:
            total += relaxed_item(said[at], wanted[at])
    return total / max(len(said), len(wanted))


def relaxed_item(prediction, target):
    said, wanted = (without_ends(text.strip(), "%").strip() for text in (prediction, target))
    try:
        p, t = (float(without_ends(text, "%")) for text in (said, wanted))
    except ValueError:
        one, other = (" ".join(text.lower().split()) for text in (said, wanted))
        longest = max(len(one.upper()), len(other.upper()))
        distance = Fraction(edits(one, other), longest) if longest else Fraction(0)
        return 1 - distance if distance < Fraction(1, 2) else 0
    return p == 0 if t == 0 else abs(p - t) / abs(t) <= 0.05


def without_ends(text, mark):
    while text.startswith(mark):
        text = text[1:]
    while text.endswith(mark):
        text = text[:-1]
    return text


def words_in_quotes(text):
    """A list's words in quotation marks, unless what comes of it is no Python; any other text as it is."""
    inner = text.strip()
    if len(inner) < 2 or inner[0] != "[" or inner[-1] != "]" or "\n" in inner:
        return text
    inner, quoted, at = inner[1:-1], "", 0
    while at < len(inner):
        end = at
        if is_word(inner[at]) and not (at and (is_word(inner[at - 1]) or inner[at - 1] == "'")):
            while end < len(inner) and (is_word(inner[end]) or inner[end] == "'"):
                end += 1
            quoted += f"'{inner[at:end]}'"
        else:
            end += 1
            quoted += inner[at]
        at = end
    return text if python_list(f"[{quoted}]") is None else f"[{quoted}]"


def is_word(character):
    return character.isalnum() or character == "_"


def python_list(text):
    """The items of a list of texts, numbers and lists as Python reads it, each as a text; None if it is none."""
    try:
        parsed = ast.parse(text.lstrip(" \t"), mode="eval").body
        return [without_ends_of(str(value)) for value in values(parsed)] if isinstance(parsed, ast.List) else None
    except (SyntaxError, ValueError):
        return None


def values(listed):
    for node in listed.elts:
        if isinstance(node, ast.List):
            yield list(values(node))
        elif isinstance(node, ast.Constant):
            yield node.value
        elif isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            if type(node.operand.value) not in (int, float) or not isinstance(node.op, ast.USub | ast.UAdd):
                raise ValueError(node)
            yield -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value
        else:
            raise ValueError(node)


def without_ends_of(text):
    while text and text[0] in " '":
        text = text[1:]
    while text and text[-1] in " '":
        text = text[:-1]
    return text
