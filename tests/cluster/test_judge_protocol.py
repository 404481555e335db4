"""The judge's requests and vLLM's server agree: its own classes accept the one and write the other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

CODE = """
import json, sys
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest, ChatCompletionResponse, ChatCompletionResponseChoice, ChatMessage,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo

asked = ChatCompletionRequest.model_validate(json.loads(sys.argv[1]))
message = ChatMessage(role="assistant", content='{"clarity": 4}')
choice = ChatCompletionResponseChoice(index=0, message=message)
reply = ChatCompletionResponse(model="judge", choices=[choice], usage=UsageInfo())
print(json.dumps({
    "unknown": sorted(asked.model_extra), "max_tokens": asked.max_tokens, "thinking": asked.chat_template_kwargs,
    "schema": asked.response_format.json_schema.json_schema, "reply": reply.model_dump_json(),
}))
"""


@pytest.mark.cluster
def test_requests_and_replies_are_those_of_vllm() -> None:
    from rewards.judge import Config, sheet
    from rewards.judge.asking import request
    from rewards.judge.endpoint import Reply, _read
    from rlhf.core.types import Message, Prompt

    body = {"chat_template_kwargs": {"enable_thinking": False}}
    cfg = Config(url="http://h/v1", model="judge", criteria={"clarity": "a"}, read="schema", max_tokens=9, body=body)
    prompt = Prompt(id="p", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    asked = json.dumps(request(sheet.ask(cfg, prompt, "2"), cfg, form=sheet.schema(cfg)))
    run = subprocess.run([sys.executable, "-c", CODE, asked], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert found["unknown"] == [] and found["max_tokens"] == 9 and found["thinking"] == {"enable_thinking": False}
    assert found["schema"]["properties"]["clarity"]["enum"] == [1, 2, 3, 4, 5]
    assert _read(found["reply"].encode()) == Reply(text='{"clarity": 4}')
