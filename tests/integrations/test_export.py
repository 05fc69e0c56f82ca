"""A corrected model is the same everywhere: folded, wrapped, compiled, exported, reloaded."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from evenhand.correction import Correction, fit_correction
from evenhand.correction.storage import hash_names
from evenhand.declared import InputError
from evenhand.integrations.heads import find_head, fold_arrays, fold_into_model, label_names

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from evenhand.integrations.torch import CorrectedModule  # noqa: E402

K, ROWS = 50, 10_000


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, K)).eval()


@pytest.fixture(scope="module")
def rows():
    return torch.randn(ROWS, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels(model, rows):
    """Labels of a long tail that the model sees through a tilt."""
    with torch.no_grad():
        z = 6 * model(rows).double().numpy()
    prior = -1.5 * np.log(np.arange(1, K + 1))
    noise = np.random.default_rng(0).gumbel(size=z.shape)
    return (z + prior + noise).argmax(axis=1)


@pytest.fixture(scope="module")
def logits(model, rows):
    with torch.no_grad():
        return model(rows).numpy()


def pairs(k=K):
    rng = np.random.default_rng(3)
    return rng.integers(0, k, 60), rng.integers(0, k, 60), rng.uniform(0.5, 3, 60)


@pytest.fixture(scope="module", params=["accuracy", "counts", "macro-f1", "cost", "dense cost", "vector scaling"])
def fix(request, logits, labels):
    true, decided, cost = pairs()
    dense = np.array(sparse.coo_array((cost, (true, decided)), (K, K)).todense()) + 1 - np.eye(K)
    options = {
        "cost": {"costs": (true, decided, cost)},
        "dense cost": {"costs": dense},
        "vector scaling": {"models": ("vector-scaling",)},
    }.get(request.param, {})
    goal = {"dense cost": "cost", "vector scaling": "accuracy"}.get(request.param, request.param)
    names = [f"class {c}" for c in range(K)]
    return fit_correction(logits[:4000], labels[:4000], goal=goal, class_names=names, **options)


@pytest.fixture(scope="module")
def additive(logits, labels):
    return fit_correction(logits[:4000], labels[:4000], goal="counts", class_names=[f"class {c}" for c in range(K)])


def same_decisions(scores, fix, logits):
    """The argmax of `scores` is what the correction decides, but for rows that rounding may turn."""
    scores, expected = np.asarray(scores, np.float64), fix.predict(logits)
    decided = scores.argmax(axis=1)
    gap = scores.max(axis=1) - scores[np.arange(len(scores)), expected]
    assert gap.max() < 1e-5
    assert (decided != expected).sum() <= 2
    assert (decided != logits.argmax(axis=1)).any(), "the correction changes decisions"


def test_the_module_decides_as_the_correction(model, rows, fix, logits):
    with torch.no_grad():
        same_decisions(CorrectedModule(model, fix)(rows), fix, logits)
        p = CorrectedModule(model, fix, output="posterior")(rows)
        decided = CorrectedModule(model, fix, output="classes")(rows)
    np.testing.assert_allclose(p, fix.posterior(logits), atol=1e-6)
    assert decided.dtype == torch.int64
    assert (decided.numpy() != fix.predict(logits)).sum() <= 2


def test_impossible_classes_stay_impossible(fix):
    z = torch.randn(200, K)
    z[:, :45] = -torch.inf
    scores = CorrectedModule(nn.Identity(), fix)(z)
    assert (scores[:, :45] == -torch.inf).all()
    assert torch.isfinite(scores[:, 45:]).all()
    np.testing.assert_array_equal(scores.argmax(-1), fix.predict(z))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_corrected_in_single_precision(additive, dtype):
    z = torch.randn(64, K).to(dtype)
    scores = CorrectedModule(nn.Identity(), additive)(z)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, additive.apply(z))


def test_torch_export(model, rows, fix, logits):
    wrapped = CorrectedModule(model, fix).eval()
    batch = torch.export.Dim("batch", min=2, max=100_000)
    exported = torch.export.export(wrapped, (rows[:8],), dynamic_shapes=(({0: batch},),))
    with torch.no_grad():
        scores = exported.module()(rows)
        torch.testing.assert_close(scores, wrapped(rows))
    same_decisions(scores, fix, logits)


def test_torch_compile(model, rows, fix, logits):
    compiled = torch.compile(CorrectedModule(model, fix), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        same_decisions(compiled(rows), fix, logits)


@pytest.mark.parametrize("way", ["wrapped", "folded"])
def test_onnx_runtime(model, rows, fix, logits, way, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    if way == "folded" and not fix.additive:
        with pytest.raises(InputError, match="no offset per class"):
            fold_into_model(fix, copy.deepcopy(model), path="2")
        return
    shipped = copy.deepcopy(model)
    batch = {0: torch.export.Dim("batch", min=2, max=100_000)}
    if way == "wrapped":
        shipped = CorrectedModule(shipped, fix).eval()
    else:
        fold_into_model(fix, shipped, path="2")
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        torch.onnx.export(
            shipped, (rows[:8],), str(file), dynamo=True, input_names=["x"], output_names=["scores"],
            dynamic_shapes=((batch,),) if way == "wrapped" else (batch,), verbose=False,
        )  # fmt: skip
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    same_decisions(session.run(None, {"x": rows.numpy()})[0], fix, logits)


def test_folding_arrays_is_folding_a_layer(model, rows, additive, logits):
    layer, folded = model[2], copy.deepcopy(model)
    assert fold_into_model(additive, folded) == "2"
    weight, bias = fold_arrays(additive, layer.weight, layer.bias, classes_axis=0)
    np.testing.assert_allclose(weight, folded[2].weight.detach(), rtol=1e-6)
    np.testing.assert_allclose(bias, folded[2].bias.detach(), rtol=1e-5, atol=1e-6)
    kernel, same = fold_arrays(additive, layer.weight.T, layer.bias, classes_axis=1)
    np.testing.assert_array_equal(kernel.T, weight)
    np.testing.assert_array_equal(same, bias)
    with torch.no_grad():
        hidden = model[:2](rows).numpy()
        same_decisions(folded(rows), additive, logits)
    same_decisions(hidden @ kernel + bias, additive, logits)
    np.testing.assert_allclose(fold_arrays(additive, layer.weight, classes_axis=0)[1], additive.offset, rtol=1e-6)


def test_a_square_kernel_is_folded_along_the_stated_axis():
    fix = Correction(
        np.array([1.0, 2.0]), np.zeros(2), "accuracy", "vector-scaling", {}, 9, 5, recommended=False, why=""
    )
    assert fold_arrays(fix, np.ones((2, 2)), classes_axis=0)[0].tolist() == [[1, 1], [2, 2]]
    assert fold_arrays(fix, np.ones((2, 2)), classes_axis=1)[0].tolist() == [[1, 2], [1, 2]]
    for weight, bias, axis in ((np.ones((3, 2)), None, 0), (np.ones(2), None, 0), (np.ones((2, 2)), np.ones(3), 0)):
        with pytest.raises(InputError):
            fold_arrays(fix, weight, bias, classes_axis=axis)


def test_state_dict_carries_the_correction_and_its_class_order(model, rows, fix):
    names = [f"class {c}" for c in range(K)]
    wrapped = CorrectedModule(model, fix, class_names=names)
    blank = replace(fix, scale=1.0, offset=np.zeros(K), names_hash=None)
    other = CorrectedModule(copy.deepcopy(model), blank)
    other.load_state_dict(wrapped.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other(rows[:100]), wrapped(rows[:100]))
    turned = CorrectedModule(model, replace(fix, names_hash=hash_names(names[::-1])))
    with pytest.raises(RuntimeError, match="another order"):
        turned.load_state_dict(wrapped.state_dict())
    with pytest.raises(InputError, match="another order"):
        CorrectedModule(model, fix, class_names=names[::-1])


def test_bad_wrapping(model, additive):
    with pytest.raises(InputError, match="output must be"):
        CorrectedModule(model, additive, output="labels")
    with pytest.raises(InputError, match="50 classes but the logits have 7"):
        CorrectedModule(nn.Identity(), additive)(torch.randn(3, 7))
    with pytest.raises(InputError, match="an output with logits"):
        CorrectedModule(nn.LSTM(4, K), additive)(torch.randn(3, 4))


class Head(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.dense = nn.Linear(K, K)
        self.out_proj = nn.Linear(K, K, bias=bias)


class Classifier(nn.Module):
    """Shaped as encoders with a two-layer head are: many layers have K rows."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.embedding = nn.Embedding(K, K)
        self.body = nn.Linear(K, K)
        self.classifier = Head(bias)


def test_heads_are_found_by_shape_then_by_name(additive):
    assert find_head(nn.Sequential(nn.Embedding(K, 8), nn.Linear(8, K)), K) == "1"
    assert find_head(nn.ModuleDict({"body": nn.Linear(K, K), "score": nn.Linear(K, K)}), K) == "score"
    with pytest.raises(InputError, match=r"'classifier.dense', 'classifier.out_proj' among 3; state its path"):
        find_head(Classifier(), K)
    with pytest.raises(InputError, match="found none"):
        find_head(nn.Linear(4, 3), K)
    assert fold_into_model(additive, Classifier(), path="classifier.out_proj") == "classifier.out_proj"
    with pytest.raises(InputError, match="no layer 'classifier'"):
        fold_into_model(additive, Classifier(), path="classifier")


def test_a_new_bias_and_shared_weights_are_refused(additive):
    with pytest.raises(InputError, match="would drop a new one"):
        fold_into_model(additive, Classifier(bias=False), path="classifier.out_proj")
    bare = Classifier(bias=False)
    fold_into_model(additive, bare, path="classifier.out_proj", new_bias=True)
    assert bare.classifier.out_proj.bias.shape == (K,)
    tied = Classifier()
    tied.classifier.out_proj.weight = tied.embedding.weight
    with pytest.raises(InputError, match="shared with another layer"):
        fold_into_model(additive, tied, path="classifier.out_proj")


@pytest.mark.parametrize("kind", ["DistilBert", "Roberta", "GPT2"])
def test_hugging_face_heads(kind, additive):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "DistilBert": {"dim": 32, "hidden_dim": 32, "n_layers": 1, "n_heads": 2},
        "Roberta": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "pad_token_id": 0},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(vocab_size=97, num_labels=K, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    assert label_names(model) is None
    tokens = {"input_ids": torch.randint(1, 97, (64, 6)), "attention_mask": torch.ones(64, 6, dtype=torch.int64)}
    with torch.no_grad():
        before = model(**tokens)
        wrapped = CorrectedModule(model, additive)(**tokens)
        expected = additive.apply(before.logits)
        path = fold_into_model(additive, model, new_bias=kind == "GPT2")
        torch.testing.assert_close(model(**tokens).logits, expected, rtol=1e-5, atol=1e-5)
    assert type(wrapped) is type(before)
    torch.testing.assert_close(wrapped.logits, expected)
    assert path == {"DistilBert": "classifier", "Roberta": "classifier.out_proj", "GPT2": "score"}[kind]
    model.config.id2label = {c: f"class {K - c}" for c in range(K)}
    with pytest.raises(InputError, match="other class names"):
        fold_into_model(additive, model, again=True)
