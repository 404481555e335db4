"""Hierarchies: every kind of question by hand or against another way to answer it, and what a config refuses."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest
import task_proofs

from rlhf.core.answers import read_gold
from rlhf.core.errors import ConfigError
from rlhf.tasks import hierarchy
from rlhf.tasks.hierarchy import Config, documents, formulas, trees
from rlhf.tasks.hierarchy import tree as shapes
from rlhf.tasks.hierarchy.tree import Tree

TREE = Tree("a", {"a": ["b", "c"], "b": ["d", "e"], "c": [], "d": [], "e": []})
BINARY = Tree("a", {"a": ["b", "c"], "b": ["d"], "c": [], "d": []}, {"b": "L", "c": "R", "d": "R"})


@pytest.mark.parametrize("kind", hierarchy.KINDS)
def test_golds_of_every_kind_are_accepted_and_damaged_ones_are_not(kind: str) -> None:
    found = task_proofs.prove("hierarchy", items=40, kinds=[kind])
    assert (found.accepted, found.rejected) == (40, 40)
    larger: dict[str, Any] = {"style": "words", "encoding": "indented", "weights": True, "max_levels": 4}
    larger |= {"operators": "+-*/^", "decimals": True, "max_operands": 6}
    found = task_proofs.prove("hierarchy", items=20, kinds=[kind], **larger)
    assert (found.accepted, found.rejected) == (20, 20)


def test_trees_are_written_in_three_ways() -> None:
    assert shapes.written(TREE, encoding="edges", spaced=False) == "a>b,b>d,b>e,a>c"
    assert shapes.written(TREE, encoding="edges", spaced=True) == "a -> b, b -> d, b -> e, a -> c"
    assert shapes.written(TREE, encoding="indented", spaced=True) == "a\n|-- b\n|   |-- d\n|   `-- e\n`-- c"
    assert shapes.nested(BINARY) == "a(b(.,d),c)"
    assert shapes.written(BINARY, encoding="edges", spaced=False) == "a-(L)->b,b-(R)->d,a-(R)->c"


def test_ancestors_and_paths() -> None:
    assert TREE.path("e") == ["a", "b", "e"]
    assert (TREE.common("d", "e"), TREE.common("d", "c"), TREE.common("b", "e")) == ("b", "a", "b")
    assert TREE.levels() == [["a"], ["b", "c"], ["d", "e"]]


def test_changed_trees() -> None:
    assert trees.added(TREE, "x", "c", None).edges()[-1] == ("c", "x")
    assert trees.removed(TREE, "b").edges() == [("a", "d"), ("a", "e"), ("a", "c")]
    assert trees.removed(TREE, "a").edges() == [("b", "d"), ("b", "e"), ("b", "c")], "the first child becomes the root"
    assert trees.mirrored(BINARY).edges() == [("a", "c", "L"), ("a", "b", "R"), ("b", "d", "L")]
    weighted = Tree("a", {"a": ["b"], "b": ["c"], "c": []}, {"b": "7", "c": "9"})
    assert trees.removed(weighted, "b").edges() == [("a", "c", "9")]
    assert trees.removed(weighted, "a").edges() == [("b", "c", "9")]


def test_traversals_and_balance() -> None:
    orders = {order: "".join(trees.traversed(BINARY, order)) for order in ("preorder", "inorder", "postorder")}
    assert orders == {"preorder": "abdc", "inorder": "bdac", "postorder": "dbca"}
    assert trees.is_balanced(BINARY)
    chain = Tree("a", {"a": ["b"], "b": ["c"], "c": []}, {"b": "L", "c": "L"})
    assert not trees.is_balanced(chain)


def test_shapes_forget_names_and_order() -> None:
    other = Tree("x", {"x": ["y", "z"], "y": [], "z": ["u", "v"], "u": [], "v": []})
    assert TREE.shape() == other.shape() != BINARY.shape()


def test_answers_of_yes_and_no_are_of_both_kinds() -> None:
    for kind in ("leaf", "balance", "isomorphic", "node_relationship", "equivalence"):
        answers = [p.columns["answer"] for p in task_proofs.prompts_of("hierarchy", items=150, kinds=[kind])]
        assert 0.25 < answers.count("yes") / len(answers) < 0.8, kind


def test_a_document_nests_and_ends_in_numbers() -> None:
    assert documents.document(BINARY, {"d": 7, "c": 5}) == {"a": {"b": {"d": 7}, "c": 5}}


def test_values_are_exact_and_rounded_to_two_decimals() -> None:
    third = ("/", "1", "3")
    assert formulas.value(("*", third, "3")) == 1
    assert (formulas.rounded(Fraction(1, 3)), formulas.rounded(Fraction(-5, 2)), formulas.rounded(Fraction(4))) == (
        "0.33", "-2.5", "4",
    )  # fmt: skip
    for broken in (("/", "1", ("-", "2", "2")), ("*", "999999", "2")):
        with pytest.raises(formulas.Undefined):
            formulas.value(broken)


@pytest.mark.parametrize(
    ("formula", "infix"),
    [
        (("+", "1", ("*", "2", "3")), "1 + 2 * 3"),
        (("*", ("+", "1", "2"), "3"), "( 1 + 2 ) * 3"),
        (("-", "1", ("-", "2", "3")), "1 - ( 2 - 3 )"),
        (("-", ("-", "1", "2"), "3"), "1 - 2 - 3"),
        (("^", ("^", "2", "1"), "2"), "( 2 ^ 1 ) ^ 2"),
    ],
)
def test_brackets_stand_where_they_are_needed(formula: Any, infix: str) -> None:
    assert " ".join(formulas.written(formula, "infix")) == infix


def test_notations_read_back_and_brackets_may_be_switched_off() -> None:
    rng = random.Random(0)
    for brackets in (True, False):
        cfg = Config(max_operands=6, operators="+-*/^", brackets=brackets)
        for _ in range(60):
            formula = formulas.draw(rng, cfg)
            assert formulas._parsed(formulas.written(formula, "prefix")) == formula
            assert brackets or "(" not in formulas.written(formula, "infix")


def test_a_replaced_token_may_leave_the_value_as_it_was() -> None:
    prompts = task_proofs.prompts_of("hierarchy", items=600, kinds=["equivalence"], max_value=3, max_operands=3)
    same = [p for p in prompts if p.columns["answer"] == "yes" and changed(p.messages[0].content)]
    assert same, "such pairs occur, and are answered by their values"


def changed(question: str) -> bool:
    one, two = question.removeprefix("equivalence|").removesuffix("=").split("|")
    return sorted(one.replace("(", "").replace(")", "").split()) != sorted(
        two.replace("(", "").replace(")", "").split()
    )


def test_sizes_follow_the_config() -> None:
    deep = task_proofs.prompts_of("hierarchy", items=60, kinds=["node_depth"], min_levels=5, max_levels=5, max_nodes=40)
    assert max(int(str(read_gold(p.gold).value)) for p in deep) == 5
    full = task_proofs.prompts_of(
        "hierarchy", items=10, kinds=["root"], min_levels=3, max_levels=3, min_degree=3, max_degree=3, balanced=True
    )
    assert {p.columns["difficulty"] for p in full} == {13}


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kinds": ["forest"]}, "kinds"), ({"encoding": "xml"}, "encoding"), ({"min_levels": 1}, "min_levels"),
        ({"max_degree": 1}, "max_degree"), ({"operators": "^"}, "operators"), ({"operators": "+%"}, "operators"),
        ({"max_nodes": 2}, "max_nodes"), ({"noise": 2}, "noise"), ({"min_operands": 1}, "min_operands"),
        ({"max_value": 0}, "max_value"),
    ],
)  # fmt: skip
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where
