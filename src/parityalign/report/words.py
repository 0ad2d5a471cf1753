"""The codes of records in words; what is not listed here reads well enough with spaces for underscores."""

from collections.abc import Mapping

_WORDS: Mapping[str, str] = {
    # what came of a reply, or of a row of the user's own pairs
    "ok": "became a pair",
    "duplicate": "the same as an earlier one",
    "repeat_question": "question asked before, with another answer",
    "over_quota": "one too many of its kind",
    "no_question": "no question in it",
    "no_answer": "no answer in it",
    "empty": "nothing in it",
    "refusal": "declined",
    "unanswerable": "answer says that it cannot be told",
    "too_long": "question or answer too long",
    "reply_too_long": "reply too long to be read",
    "unfinished_thought": "still thinking when its tokens were used up",
    "special_token": "holds a special token of the model",
    "answer_in_question": "question contains its answer",
    "no_image": "names no image",
    "not_taken_in": "its image was not taken in",
    "several_images": "about several images",
    # why an image was set aside, or what was noted of one
    "duplicate_pixels": "same pixels as another image",
    "near_duplicate": "nearly the same as another image",
    "in_test_split": "also in a test split",
    "not_an_image": "not an image",
    "empty_file": "empty file",
    "zero_bytes": "empty file",
    "too_slow": "takes too long to open",
    "outside_folder": "outside of the data set's folder",
    "no_bytes": "no image in the row",
    "first_frame": "first frame of several",
    "other_format": "named as another format",
    # why a question was not scored
    "over_limit": "beyond evaluate.limit",
    "missing_image": "image missing",
    "no_answers": "no answers",
    "lone_answer": "one answer where the benchmark has ten",
    "outside_subset": "not in the chosen subset",
    # filters
    "least_likely": "the teacher was least likely to write it",
    "least_sure": "the teacher was least sure of its answer",
    "question_limit": "too many questions of this wording",
    "same_question": "the same question as another",
    "re_answers": "drawn answers of the teacher disagree",
    "blank_picture": "answered the same without the picture",
    "visual_advantage": "the picture hardly helps to answer",
    "answerable": "cannot be answered from the picture",
    "second_teacher": "not confirmed by the second teacher",
    # metrics
    "anls": "ANLS",
    "textvqa_accuracy": "TextVQA accuracy",
    "vqa_accuracy_official": "VQA accuracy",
    "chartqa_relaxed_accuracy": "ChartQA relaxed accuracy",
    "chartqapro_relaxed_accuracy": "ChartQAPro relaxed accuracy",
    "docvqa_anls": "DocVQA ANLS",
    "ocrbench_accuracy": "OCRBench accuracy",
    "realworldqa_accuracy": "RealWorldQA accuracy",
    "mpa_substring": "the paper's substring rule",
}


def in_words(code: str) -> str:
    """A code as a reader says it; what has spaces is in words already."""
    return _WORDS.get(code, code if " " in code else code.replace("_", " "))
