"""The per-layer losses in the Trainers of transformers and TRL, held against this book's own."""

import copy

import independent_gradient
import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from lib import stats
from lib.balance import losses, objective
from lib.balance import trainer as balance
from lib.commands import affected
from lib.routing import adapter

SEQUENCES, TOKENS, COEFFICIENT = 8, 24, 0.3


class Rows(Dataset):
    """Sequences of random tokens."""

    def __init__(self, number=SEQUENCES):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 97, (number, TOKENS), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, number):
        return {"input_ids": self.ids[number], "labels": self.ids[number]}


def arguments(folder, accumulation, **changes):
    known = dict(
        output_dir=str(folder),
        per_device_train_batch_size=SEQUENCES // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=1.0,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        weight_decay=0.0,
        report_to=[],
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    return TrainingArguments(**known | changes)


def book(model, loss):
    """The gradient of this book's objective on all sequences at once, by name."""
    own = copy.deepcopy(model).train()
    own.config.output_router_logits = False
    with adapter.record(own, scores=True) as rec:
        ids = Rows().ids
        language = own(input_ids=ids, labels=ids, use_cache=False).loss
        term = objective.balance_loss(own, rec, losses.LOSSES[loss])
        (language + COEFFICIENT * term).backward()
    return {name: part.grad for name, part in own.named_parameters()}


@pytest.mark.parametrize("loss", ["switch", "gini"])
def test_this_books_gradient_is_that_of_the_papers_formulas(tiny_model, loss):
    own, ids = copy.deepcopy(tiny_model).train(), Rows().ids
    formula = getattr(independent_gradient, loss)
    wanted = independent_gradient.of_step(own, ids, COEFFICIENT, formula)
    for name, found in book(tiny_model, loss).items():
        torch.testing.assert_close(found, wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("loss", ["switch", "gini"])
def test_the_trainers_gradient_is_this_books(tiny_model, tmp_path, loss, accumulation):
    """One step of plain descent at rate 1 changes each weight by minus its gradient.  Switched off
    with it: the pooled loss.
    """
    tiny_model.config.output_router_logits = True
    start, expected = copy.deepcopy(tiny_model.state_dict()), book(tiny_model, loss)
    without = book(tiny_model, "none")
    trainer = Trainer(tiny_model, arguments(tmp_path, accumulation), train_dataset=Rows())
    balance.attach(trainer, loss, COEFFICIENT)
    trainer.train()
    for name, part in tiny_model.named_parameters():
        torch.testing.assert_close(start[name] - part.data, expected[name], atol=1e-5, rtol=0)
    assert any((expected[name] - without[name]).abs().max() > 1e-3 for name in expected)


def test_the_load_is_logged_per_layer(tiny_model, tmp_path):
    """Two steps of the whole text at rate 0: what is logged is the load of that text."""
    made = arguments(tmp_path, 2, max_steps=2, learning_rate=0.0)
    trainer = Trainer(tiny_model, made, train_dataset=Rows())
    trainer.add_callback(balance.Watch(tiny_model))
    balance.attach(trainer, "switch", COEFFICIENT)
    trainer.train()
    with adapter.record(tiny_model) as rec, torch.no_grad():
        tiny_model(input_ids=Rows().ids)
    load = rec.load.numpy()
    logged = [row for row in trainer.state.log_history if "gini" in row]
    assert len(logged) == 2
    for row in logged:
        assert row["gini"] == pytest.approx(stats.gini(load).mean())
        for layer in range(3):
            assert row[f"gini/{layer + 1}"] == pytest.approx(stats.gini(load)[layer])
            assert row[f"max_violation/{layer + 1}"] == pytest.approx(
                stats.max_violation(load)[layer]
            )
            assert row[f"dead_experts/{layer + 1}"] == (load[layer] == 0).sum()


@pytest.mark.parametrize("loss", ["stock", "bias", "none"])
def test_what_is_no_loss_of_one_layer_is_refused(tiny_model, tmp_path, loss):
    trainer = Trainer(tiny_model, arguments(tmp_path, 1), train_dataset=Rows())
    with pytest.raises(ValueError, match=f"trainer.attach: loss = '{loss}': must be one of switch"):
        balance.attach(trainer, loss, 0.1)


def sft(model, folder, accumulation, **changes):
    """TRL's supervised fine-tuning of token ids."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"input_ids": Rows().ids.tolist()})
    known = arguments(folder, accumulation).to_dict()
    names = (
        "output_dir",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "max_steps",
    )
    names += ("learning_rate", "lr_scheduler_type", "optim", "max_grad_norm", "weight_decay")
    names += ("report_to", "use_cpu", "logging_steps", "save_strategy", "disable_tqdm")
    names += ("train_sampling_strategy",)
    own = trl.SFTConfig(
        **{name: known[name] for name in names},
        max_length=TOKENS,
        bf16=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **changes,
    )
    return trl.SFTTrainer(model, own, train_dataset=rows, processing_class=tokenizer(trl))


def tokenizer(_trl):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(number): number for number in range(97)}
    made = Tokenizer(models.WordLevel(words, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="0", eos_token="1")


@pytest.mark.parametrize("accumulation", [1, 4])
def test_trls_gradient_is_this_books(tiny_model, tmp_path, accumulation):
    start = copy.deepcopy(tiny_model.state_dict())
    expected = book(tiny_model, "switch")
    trainer = sft(tiny_model, tmp_path, accumulation)
    balance.attach(trainer, "switch", COEFFICIENT)
    trainer.train()
    for name, part in tiny_model.named_parameters():
        torch.testing.assert_close(start[name] - part.data, expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("coefficient", "adds"), [(0.01, True), (0.0, False)])
def test_what_the_command_says_of_trl_is_what_trl_does(tiny_model, tmp_path, coefficient, adds):
    tiny_model.config.router_aux_loss_coef = coefficient
    told = affected.coefficients(tiny_model.config)
    assert told["the Trainer of transformers"] == 0.0
    assert told["TRL (SFT, DPO, GRPO)"] == coefficient
    trainer = sft(tiny_model, tmp_path, 1)
    assert trainer.aux_loss_enabled is adds


def test_the_command_tells_configuration_and_layers(capsys):
    affected.main(["without", "--documents", "2", "--tokens", "64", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "the Trainer of transformers: adds no balance loss" in said
    assert "TRL (SFT, DPO, GRPO): adds the pooled loss, times 0.01" in said
    assert "pushed the wrong way" in said and 'balance.attach(trainer, "switch", 0.01)' in said
    assert len([line for line in said.splitlines() if line.split()[:1] in (["1"], ["6"])]) == 2
