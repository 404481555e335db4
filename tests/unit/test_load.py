"""Models made from nothing, and model folders that must be refused."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Head
from rlhf.models import load, tiny, tokenizers
from rlhf.models.forward import value_head

TEXTS = ["3+5=8\n#### 8", "naïve 世界", "the theme of the thesis"] * 5
TEXT = "  a\tb\n\n 世界 don't , . naïve  3+5=8 "


def make(folder, *, seed=0, **cfg):
    return load.prepare(load.Config(**({"init": "tiny"} | cfg)), folder, texts=TEXTS, seed=seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def test_the_same_seed_gives_the_same_files(made, tmp_path):
    again = make(tmp_path / "again")
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in again.iterdir()) and "model.safetensors" in names
    for name in names:
        assert (made / name).read_bytes() == (again / name).read_bytes(), name


def test_a_critic_of_a_policy_s_weights_starts_with_values_of_0(made, tmp_path, capfd):
    critic = load.load_model(made, head=Head.VALUES)
    assert capfd.readouterr() == ("", ""), "transformers would warn of the other head"
    policy = load.load_model(made)
    assert torch.equal(critic.get_input_embeddings().weight, policy.get_input_embeddings().weight)
    head = value_head(critic)
    assert head.out_features == 1 and not head.weight.any() and not head.bias.any()
    torch.nn.init.normal_(head.weight)
    critic.save_pretrained(tmp_path)
    assert torch.equal(value_head(load.load_model(tmp_path, head=Head.VALUES)).weight, head.weight)


def test_a_model_of_steps_has_two_labels_and_starts_undecided(made, tmp_path, capfd):
    steps = load.load_model(made, head=Head.STEPS)
    assert capfd.readouterr() == ("", "")
    head = value_head(steps)
    assert head.out_features == 2 and not head.weight.any() and not head.bias.any()
    torch.nn.init.normal_(head.weight)
    steps.save_pretrained(tmp_path)
    assert torch.equal(value_head(load.load_model(tmp_path, head=Head.STEPS)).weight, head.weight)
    again = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(again.score.weight, head.weight), "an ordinary token classifier"
    with pytest.raises(DataError, match=r"score\.weight is \(2, 128\), not \(1, 128\)"):
        load.load_model(tmp_path, head=Head.VALUES)


def test_a_critic_needs_all_weights_but_those_of_its_head(copy):
    tensors = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, copy / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.norm\.weight is missing"):
        load.load_model(copy, head=Head.VALUES)


def test_a_classifier_of_several_labels_is_no_critic(made, tmp_path):
    AutoModelForTokenClassification.from_pretrained(made, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"score\.weight is \(3, 128\), not \(1, 128\)"):
        load.load_model(tmp_path, head=Head.VALUES)


def test_another_seed_gives_other_weights(made, tmp_path):
    other = load_file(make(tmp_path / "other", seed=1) / "model.safetensors")
    first = load_file(made / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(first[name], other[name])
    assert first[name].std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)


def test_making_a_model_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "millions"), [("nano", 0.13), ("tiny", 1), ("small", 10), ("medium", 100)])
def test_sizes_are_what_they_say(size, millions):
    with torch.device("meta"):
        model = tiny.build_model(size, vocabulary=tiny.Vocabulary(size=102, eos=1, pad=0), max_positions=64, seed=0)
    assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.03)
    assert model.config.head_dim >= (16 if size == "nano" else 32)


def test_a_made_model_loads_and_ends_where_its_tokenizer_does(made, capfd):
    model, tokenizer = load.load_model(made, device="cpu"), load.load_tokenizer(made)
    assert capfd.readouterr() == ("", "")
    assert model.dtype == torch.float32 and not model.training
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    logits = model(input_ids=torch.tensor([[2, 10, 11]])).logits
    assert logits.shape == (1, 3, len(tokenizer)) and logits.isfinite().all()


@pytest.mark.parametrize(("dtype", "expected"), [("float64", torch.float64), ("bfloat16", torch.bfloat16)])
def test_weights_take_the_type_asked_for(made, dtype, expected):
    assert load.load_model(made, dtype=dtype, device="cpu").dtype == expected


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_tokenizers_give_back_the_text_after_a_round_trip_through_disk(tmp_path, kind):
    texts = [*TEXTS, "\t"]
    cfg = load.Config(init="tiny", tokenizer=kind, bpe_vocab_size=300)
    tokenizer = load.load_tokenizer(load.prepare(cfg, tmp_path, texts=texts, seed=0))
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    assert [tokenizer.convert_tokens_to_ids(token) for token in tokenizers.SPECIAL] == list(range(6))
    assert tokenizer.pad_token == "<|pad|>" and tokenizer.eos_token == "<|eos|>"
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "3+5+9="}], add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.decode(turn) == "<|user|>3+5+9=<|assistant|>"
    assert tokenizer.decode(turn, skip_special_tokens=True) == "3+5+9="
    assert turn[0] == 2 and turn[-1] == 3


def test_the_char_tokenizer_has_one_token_per_character():
    tokenizer = tokenizers.train_char(["世"])
    assert len(tokenizer) == 6 + 1 + 95 + 1
    assert len(tokenizer.encode("ab\n世", add_special_tokens=False)) == 4
    assert tokenizer.encode("Ω", add_special_tokens=False) == [tokenizer.unk_token_id]


def test_bpe_merges_letters_but_never_digits():
    tokenizer = tokenizers.train_bpe(["the 1234 the 1234"] * 20, vocab_size=300)
    assert tokenizer.tokenize("the1234") == ["the", "1", "2", "3", "4"]
    assert len(tokenizer) <= 300


@pytest.mark.parametrize("template", ["plain", "file", "{{ messages[0]['content'] }}"])
def test_a_chat_template_can_be_replaced(made, tmp_path, template):
    if template == "file":
        (tmp_path / "t.jinja").write_text("<{{ messages[0]['content'] }}>")
        template = str(tmp_path / "t.jinja")
    tokenizer = load.load_tokenizer(made, chat_template=template)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert text in ("q\n", "<q>", "q")
    saved = load.load_tokenizer(make(tmp_path / "m", chat_template=template))
    assert saved.chat_template == tokenizer.chat_template


def test_a_chat_template_that_is_no_file_is_refused(made):
    with pytest.raises(ConfigError, match=r"model\.chat_template: 'chatml' is neither a file nor"):
        load.load_tokenizer(made, chat_template="chatml")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"path": "x", "init": "tiny"}, "init"),
        ({"init": "huge"}, "init"),
        ({"tokenizer": "word"}, "tokenizer"),
        ({"dtype": "float16"}, "dtype"),
        ({"bpe_vocab_size": 261}, "bpe_vocab_size"),
        ({"max_positions": 1}, "max_positions"),
    ],
)
def test_impossible_values_name_their_field(wrong, field):
    with pytest.raises(ConfigError) as caught:
        load.Config(**wrong)
    assert caught.value.where == field


def test_neither_path_nor_init_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"^model\.path: there is no model.*\n.*model\.path or model\.init"):
        load.prepare(load.Config(), tmp_path, texts=[], seed=0)


def test_a_local_path_is_used_where_it_lies(made, tmp_path):
    assert load.prepare(load.Config(path=str(made)), tmp_path / "new", texts=[], seed=0) == made
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", ["./gone", "/gone/model", "a/b/c"])
def test_a_missing_folder_is_an_error(path):
    with pytest.raises(DataError, match=f"^{path}: no such model folder"):
        load.load_model(path, device="cpu")


def test_a_hub_id_is_fetched_without_code_or_pickles(monkeypatch, made):
    asked = {}

    def snapshot_download(name, **kwargs):
        asked[name] = kwargs["allow_patterns"]
        return str(made)

    monkeypatch.setattr(load, "snapshot_download", snapshot_download)
    assert load.local_folder("org/name") == made
    load.local_folder("org/coded", trust_remote_code=True)
    assert not {"*.py", "*.bin"} & set(asked["org/name"])
    assert "*.py" in asked["org/coded"]


def test_a_hub_failure_is_one_readable_error(monkeypatch):
    def snapshot_download(name, **kwargs):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(load, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match=r"^org/name: is no folder here and cannot be fetched from the hub: no route\n"):
        load.load_tokenizer("org/name")


def test_pickled_weights_are_refused(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"pickles only \(pytorch_model\.bin\).*\n.*convert them to safetensors"):
        load.load_model(copy, device="cpu")


def test_a_folder_without_weights_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match="holds no weights"):
        load.load_model(copy, device="cpu")


def test_a_damaged_weights_file_is_refused(copy):
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="the model cannot be loaded"):
        load.load_model(copy, device="cpu")


def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights.*model\.layers\.2\.mlp\.up_proj\.weight is missing"):
        load.load_model(copy, device="cpu")


def test_weights_of_another_shape_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(
        DataError, match=r"12 weights.* model\.layers\.0\.mlp\.down_proj\.weight is \(128, 480\), not \(128, 96\)"
    ):
        load.load_model(copy, device="cpu")


def test_a_folder_without_tokenizer_is_refused(copy):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match="the tokenizer cannot be loaded"):
        load.load_tokenizer(copy)


def test_code_that_a_model_ships_does_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    auto_map = {"AutoConfig": "shipped.Config", "AutoModelForCausalLM": "shipped.Model"}
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": auto_map}))
    canary = copy / "canary"
    (copy / "shipped.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    with pytest.raises(DataError, match=r"\n.*set model\.trust_remote_code: true"):
        load.load_model(copy, device="cpu")
    assert not canary.exists()


def test_devices():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert load.resolve_device("auto").type == expected
    with pytest.raises(ConfigError, match="'gpu' is not a device"):
        load.resolve_device("gpu")
    with pytest.raises(ConfigError, match="'cuda:99' is not there"):
        load.resolve_device("cuda:99")
