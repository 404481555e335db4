"""Which checker belongs to which id of `rlhf.core.instructions.ARGUMENTS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rewards.constraints import ifeval, trained
from rlhf.core.instructions import Instruction

CHECKERS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": ifeval.existence,
    "keywords:frequency": ifeval.frequency,
    "keywords:forbidden_words": ifeval.forbidden_words,
    "keywords:letter_frequency": ifeval.letter_frequency,
    "language:response_language": ifeval.response_language,
    "length_constraints:number_sentences": ifeval.number_sentences,
    "length_constraints:number_paragraphs": ifeval.number_paragraphs,
    "length_constraints:number_words": ifeval.number_words,
    "length_constraints:nth_paragraph_first_word": ifeval.nth_paragraph_first_word,
    "detectable_content:number_placeholders": ifeval.number_placeholders,
    "detectable_content:postscript": ifeval.postscript,
    "detectable_format:number_bullet_lists": ifeval.number_bullet_lists,
    "detectable_format:constrained_response": ifeval.constrained_response,
    "detectable_format:number_highlighted_sections": ifeval.number_highlighted_sections,
    "detectable_format:multiple_sections": ifeval.multiple_sections,
    "detectable_format:json_format": ifeval.json_format,
    "detectable_format:title": ifeval.title,
    "combination:two_responses": ifeval.two_responses,
    "combination:repeat_prompt": ifeval.repeat_prompt,
    "startend:end_checker": ifeval.end_checker,
    "startend:quotation": ifeval.quotation,
    "change_case:capital_word_frequency": ifeval.capital_word_frequency,
    "change_case:english_capital": ifeval.english_capital,
    "change_case:english_lowercase": ifeval.english_lowercase,
    "punctuation:no_comma": ifeval.no_comma,
    "copy:repeat_phrase": trained.repeat_phrase,
    "copy:copy": trained.copy,
    "new:copy_span_idx": trained.copy_span_idx,
    "detectable_format:sentence_hyphens": trained.sentence_hyphens,
    "keywords:no_adjacent_consecutive": trained.no_adjacent_consecutive,
    "detectable_format:square_brackets": trained.square_brackets,
    "keywords:word_once": trained.word_once,
    "keywords:word_count_different_numbers": trained.word_count_different_numbers,
    "keywords:exclude_word_harder": trained.exclude_word_harder,
    "paragraphs:paragraphs": trained.two_paragraphs_by_asterisks,
    "paragraphs:paragraphs2": trained.two_paragraphs_by_lines,
    "first_word:first_word_sent": trained.first_word_sent,
    "first_word:first_word_answer": trained.first_word_answer,
    "last_word:last_word_sent": trained.last_word_sent,
    "last_word:last_word_answer": trained.last_word_answer,
    "detectable_format:bigram_wrapping": trained.bigram_wrapping,
    "copy:copying_simple": trained.copy,
    "copy:copying_multiple": trained.copying_multiple,
    "punctuation:punctuation_dot": trained.no_dot,
    "punctuation:punctuation_exclamation": trained.no_exclamation,
    "count:lowercase_counting": trained.lowercase_counting,
    "letters:letter_counting": trained.letter_counting,
    "letters:letter_counting2": ifeval.letter_frequency,
    "count:counting_composition": trained.counting_composition,
    "count:count_unique": trained.count_unique,
    "count:count_increment_word": trained.count_increment_word,
    "keywords:palindrome": trained.palindrome,
    "keywords:keyword_specific_position": trained.keyword_specific_position,
    "keywords:start_end": trained.start_end,
    "count:word_count_range": trained.word_count_range,
}


def follows(answer: str, instruction: Instruction) -> bool:
    """Whether an answer follows an instruction. One of white space alone follows none.

    Raises:
        ConfigError: the check needs a package that is not installed.
    """
    return bool(answer.strip()) and CHECKERS[instruction.id](answer, **instruction.arguments)
