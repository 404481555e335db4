"""No search: one request per answer. That samples are those of plain sampling is in `test_searching`."""

from __future__ import annotations

from search_simulation import Engine, prompts, run, sampler

from rlhf.core.search import Cost


def test_an_answer_costs_one_request_and_its_own_tokens() -> None:
    [prompt] = prompts(1)
    searched = run(sampler("single"), [prompt], engine=Engine())
    [answer] = searched.groups[0].trajectories
    spent = Cost(requests=1, prompt_tokens=len(answer.prompt_tokens), completion_tokens=len(answer.tokens))
    assert searched.costs_PG == [[spent]]
