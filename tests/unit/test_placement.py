"""Seating: every role once, no device twice, tensor-parallel engines whole, and refusals that name the numbers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

import pytest

from rlhf.core.errors import ConfigError
from rlhf.runtime import placement
from rlhf.runtime.cluster import Bundle, Node, Placement, Request, Role, Seat, Strategy


def nodes(number: int, *, gpus: int = 0, cpus: int = 64) -> list[Node]:
    return [Node(name=f"n{i}", cpus=cpus, gpus=gpus) for i in range(number)]


def refused(request: Request, there: Sequence[Node]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        placement.place(request, there)
    return caught.value


def random_case(seed: int) -> tuple[Request, list[Node]]:
    draw = random.Random(seed)
    there = [
        Node(name=f"n{i}", cpus=draw.randint(1, 24), gpus=draw.choice((0, 1, 2, 4, 8)))
        for i in range(draw.randint(1, 5))
    ]
    request = Request(
        learner_ranks=draw.randint(1, 10),
        engines=draw.randint(1, 5),
        tensor_parallel=draw.choice((1, 1, 2, 3, 4, 16)),
        reward_workers=draw.randint(1, 4),
        colocate=draw.random() < 0.5,
        gpus=draw.choice(("auto", "auto", "0")),
        cpus_per_rank=draw.randint(1, 3),
        cpus_per_engine=draw.randint(1, 3),
    )
    return request, there


def placed_cases(count: int) -> list[tuple[Request, list[Node], Placement]]:
    out: list[tuple[Request, list[Node], Placement]] = []
    for seed in range(count):
        request, there = random_case(seed)
        try:
            out.append((request, there, placement.place(request, there)))
        except ConfigError:
            continue
    assert len(out) > count / 4, "most random cases are refused: the properties would hold of little"
    return out


CASES = placed_cases(3000)


def by_bundle(placed: Placement) -> dict[tuple[str, int], list[Seat]]:
    out: dict[tuple[str, int], list[Seat]] = defaultdict(list)
    for seat in placed.seats:
        out[seat.group, seat.bundle].append(seat)
    return out


def test_every_role_is_seated_exactly_once() -> None:
    for request, _, placed in CASES:
        width = request.tensor_parallel if placed.on_gpus else 1
        expected = Counter((Role.RANK, i, 0) for i in range(request.learner_ranks))
        expected += Counter((Role.ENGINE, i, w) for i in range(request.engines) for w in range(width))
        expected += Counter((Role.REWARD_WORKER, i, 0) for i in range(request.reward_workers))
        assert Counter((s.role, s.index, s.worker) for s in placed.seats) == expected


def test_seats_ask_for_no_more_than_their_bundle_and_every_bundle_is_used() -> None:
    for _, _, placed in CASES:
        groups = {group.name: group for group in placed.groups}
        assert len(groups) == len(placed.groups)
        taken = by_bundle(placed)
        assert taken.keys() == {(g.name, i) for g in placed.groups for i in range(len(g.bundles))}
        for (name, index), seats in taken.items():
            bundle = groups[name].bundles[index]
            assert sum(s.cpus for s in seats) <= bundle.cpus and sum(s.gpus for s in seats) <= bundle.gpus
            assert {s.node for s in seats} == {groups[name].nodes[index]}


def test_no_node_gives_more_than_it_has_and_no_gpu_is_given_to_two_bundles() -> None:
    for _, there, placed in CASES:
        for node in there:
            bundles = [
                b for g in placed.groups for b, name in zip(g.bundles, g.nodes, strict=True) if name == node.name
            ]
            assert sum(b.cpus for b in bundles) <= node.cpus and sum(b.gpus for b in bundles) <= node.gpus
            seats = [s for s in placed.seats if s.node == node.name and s.gpus]
            owners = {s.device: (s.group, s.bundle) for s in seats}
            assert len({(s.device, s.group, s.bundle) for s in seats}) == len(owners)
            assert all(s.device is not None and s.device < node.gpus for s in seats)


def test_a_tensor_parallel_engine_lies_on_one_node_where_a_node_holds_it() -> None:
    wide = [(r, there, p) for r, there, p in CASES if p.on_gpus and r.tensor_parallel > 1]
    assert any(len({s.node for s in engine}) > 1 for _, _, p in wide for engine in p.of(Role.ENGINE))
    for request, there, placed in wide:
        # Cores of the ranks that share its devices included.
        cores = request.cpus_per_engine + request.colocate * request.tensor_parallel * request.cpus_per_rank
        fits = any(n.gpus >= request.tensor_parallel and n.cpus >= cores for n in there)
        for engine in placed.of(Role.ENGINE):
            [name] = {s.group for s in engine}
            [group] = [g for g in placed.groups if g.name == name]
            assert [s.bundle for s in engine] == list(range(request.tensor_parallel)) == list(range(len(group.bundles)))
            if fits:
                assert group.strategy == Strategy.STRICT_PACK and len({s.node for s in engine}) == 1


def test_colocated_pairs_share_a_device_half_and_half_and_others_have_theirs_alone() -> None:
    for request, _, placed in CASES:
        width = request.tensor_parallel if placed.on_gpus else 1
        pairs = min(request.learner_ranks, request.engines * width) if request.colocate else 0
        shared = [seats for seats in by_bundle(placed).values() if len(seats) > 1]
        assert len(shared) == pairs
        for engine, rank in shared:
            assert (engine.role, rank.role) == (Role.ENGINE, Role.RANK)
            assert rank.index == engine.index * width + engine.worker
            assert engine.gpus == rank.gpus == (0.5 if placed.on_gpus else 0)
            assert placed.on_gpus or engine.cpus == rank.cpus == max(request.cpus_per_rank, request.cpus_per_engine) / 2
        alone = [s for seats in by_bundle(placed).values() if len(seats) == 1 for s in seats]
        assert all(s.gpus == (s.role != Role.REWARD_WORKER and placed.on_gpus) for s in alone)


def test_what_is_needed_in_all_is_what_the_groups_reserve() -> None:
    for request, _, placed in CASES:
        bundles = [b for g in placed.groups for b in g.bundles]
        total = Bundle(cpus=sum(b.cpus for b in bundles), gpus=sum(b.gpus for b in bundles))
        assert placement.needed(request, on_gpus=placed.on_gpus) == total


def test_the_quickstart_on_two_cores_needs_one_more_for_rewards() -> None:
    request = Request(learner_ranks=2, colocate=True)
    assert placement.needed(request, on_gpus=False) == Bundle(cpus=3, gpus=0)
    placed = placement.place(request, nodes(1, cpus=3))
    assert [(g.name, [b.resources() for b in g.bundles]) for g in placed.groups] == [
        ("engines", [{"CPU": 1}]),
        ("learner", [{"CPU": 1}]),
        ("rewards", [{"CPU": 1}]),
    ]
    assert [(s.role, s.cpus, s.cores) for s in placed.seats] == [
        (Role.ENGINE, 0.5, 1),
        (Role.RANK, 0.5, 1),
        (Role.RANK, 1, 1),
        (Role.REWARD_WORKER, 1, 1),
    ]


def test_eight_gpus_colocated() -> None:
    request = Request(learner_ranks=8, engines=4, tensor_parallel=2, colocate=True, reward_workers=2)
    placed = placement.place(request, nodes(1, gpus=8))
    assert [(g.name, g.strategy) for g in placed.groups] == [
        *((f"engine-{i}", Strategy.STRICT_PACK) for i in range(4)),
        ("rewards", Strategy.SPREAD),
    ]
    assert placed.groups[0].bundles == (Bundle(cpus=2, gpus=1), Bundle(cpus=1, gpus=1))
    assert [seat.device for [seat] in placed.of(Role.RANK)] == list(range(8))


def test_two_nodes_disaggregated_keep_the_ranks_together() -> None:
    request = Request(learner_ranks=8, engines=4, tensor_parallel=2, reward_workers=3, nodes=2)
    placed = placement.place(request, nodes(2, gpus=8))
    assert [{s.node for s in engine} for engine in placed.of(Role.ENGINE)] == [{"n0"}] * 4
    assert {seat.node for [seat] in placed.of(Role.RANK)} == {"n1"}
    assert [seat.node for [seat] in placed.of(Role.REWARD_WORKER)] == ["n0", "n1", "n0"]


def test_the_rest_of_the_ranks_goes_to_the_tightest_node_that_holds_it() -> None:
    there = [
        Node(name="small", cpus=64, gpus=2),
        Node(name="tight", cpus=64, gpus=4),
        Node(name="big", cpus=64, gpus=8),
    ]
    placed = placement.place(Request(learner_ranks=11), there)
    assert placed.of(Role.ENGINE)[0][0].node == "small"
    assert Counter(seat.node for [seat] in placed.of(Role.RANK)) == {"big": 8, "tight": 3}


def test_engines_leave_room_for_ranks() -> None:
    # Four cores hold one rank of four or four engines: engines belong on the node that has room to spare.
    there = [Node(name="tight", cpus=4, gpus=4), Node(name="spare", cpus=3, gpus=4)]
    placed = placement.place(Request(engines=2, learner_ranks=1, cpus_per_rank=4, reward_workers=1), there)
    assert {s.node for [s] in placed.of(Role.ENGINE)} == {"spare"}
    assert {s.node for [s] in placed.of(Role.RANK)} == {"tight"}


def test_an_engine_wider_than_a_node_straddles_as_few_as_possible() -> None:
    placed = placement.place(Request(tensor_parallel=16, learner_ranks=8), nodes(3, gpus=8))
    [engine] = placed.of(Role.ENGINE)
    assert [s.node for s in engine] == ["n0"] * 8 + ["n1"] * 8
    assert placed.groups[0].strategy == Strategy.PACK
    assert {s.node for [s] in placed.of(Role.RANK)} == {"n2"}


def test_gpus_are_taken_where_there_are_any_unless_the_run_says_no() -> None:
    assert placement.place(Request(), nodes(1, gpus=2)).on_gpus
    assert not placement.place(Request(), nodes(1)).on_gpus
    on_cpus = placement.place(Request(gpus="0", tensor_parallel=4), nodes(1, gpus=2))
    assert not on_cpus.on_gpus and len(on_cpus.of(Role.ENGINE)[0]) == 1 and on_cpus.seats[0].device is None
    mixed = [Node(name="cpu", cpus=8), Node(name="gpu", cpus=8, gpus=2)]
    assert {s.node for s in placement.place(Request(), mixed).seats if s.gpus} == {"gpu"}


@pytest.mark.parametrize(
    ("request_", "there", "where", "said", "fix"),
    [
        (Request(nodes=2), nodes(1), "runtime.nodes", ("2 are asked", "1 are there", "n0"), "runtime.nodes=1"),
        (Request(gpus="1"), nodes(2), "runtime.gpus", ("no node has one",), "runtime.gpus=auto"),
        (
            Request(engines=4, tensor_parallel=2, learner_ranks=8),
            nodes(1, gpus=8),
            "runtime.engines",
            ("4 engines of 2 GPUs", "8 learner ranks", "need 16 GPUs", "there are 8"),
            "runtime.colocate=true, which needs 8",
        ),
        (
            Request(learner_ranks=9, colocate=True),
            nodes(1, gpus=8),
            "runtime.learner_ranks",
            ("1 engine of 1 GPU", "9 learner ranks", "9 GPUs sharing", "there are 8"),
            "lower runtime.learner_ranks",
        ),
        (
            Request(engines=5, tensor_parallel=3),
            nodes(2, gpus=8),
            "runtime.tensor_parallel",
            ("5 engines of 3 GPUs", "room for 4", "2 × 8 GPUs"),
            "runtime.engines=4",
        ),
        (
            Request(learner_ranks=2, cpus_per_rank=4),
            nodes(1, cpus=8),
            "runtime.cpus_per_rank",
            ("1 engine × 1 core, 2 learner ranks × 4 cores", "need 10 cores", "there are 8 on the node"),
            "runtime.colocate=true",
        ),
        (
            Request(reward_workers=7),
            nodes(1, gpus=2, cpus=8),
            "runtime.reward_workers",
            ("7 reward workers × 1 core need 9 cores", "1 × 2 GPUs and 8 cores"),
            "lower runtime.reward_workers",
        ),
        (
            Request(learner_ranks=3, engines=2, colocate=True),
            nodes(1, cpus=3),
            "runtime.learner_ranks",
            ("2 engines × 1 core, 3 learner ranks × 1 core", "2 pairs sharing", "need 4 cores"),
            "lower runtime.learner_ranks",
        ),
        (
            Request(learner_ranks=2, cpus_per_rank=3),
            nodes(4, cpus=2),
            "runtime.cpus_per_rank",
            ("need 8 cores; there are 8", "not together where they are needed", "4 × 2 cores"),
            "lower runtime.cpus_per_rank",
        ),
    ],
)
def test_a_refusal_names_the_key_the_numbers_and_the_fix(
    request_: Request, there: list[Node], where: str, said: tuple[str, ...], fix: str
) -> None:
    error = refused(request_, there)
    assert error.where == where
    assert all(part in error.problem for part in said), error.problem
    assert fix in error.fix


@pytest.mark.parametrize("name", ["learner_ranks", "engines", "tensor_parallel", "nodes", "cpus_per_rank"])
def test_nothing_of_a_role_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: 0 is too few"):
        Request(**{name: 0})


def test_an_unknown_choice_of_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^gpus"):
        Request(gpus="maybe")


def test_the_work_of_planning_grows_no_faster_than_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter[int]()
    count = placement._Free.room

    def counted(self: placement._Free, bundle: Bundle) -> int:
        looks[size] += 1
        return count(self, bundle)

    monkeypatch.setattr(placement._Free, "room", counted)
    sizes = (12, 120, 1200)
    for size in sizes:
        for width, together in ((4, False), (1, True), (16, False)):
            request = Request(
                engines=4 * size // width if width > 1 else 8 * size,
                tensor_parallel=width,
                learner_ranks=8 * size if together else 4 * size,
                colocate=together,
                reward_workers=size,
                nodes=size,
            )
            placed = placement.place(request, nodes(size, gpus=8))
            assert sum(b.gpus for g in placed.groups for b in g.bundles) == 8 * size
    for small, large in pairwise(sizes):
        assert looks[large] <= 11 * looks[small]
