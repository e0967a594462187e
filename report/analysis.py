"""Compare the two layers with their formulas, and write the analysis of the reference report.

    python -m report.analysis --run runs/required-42        seconds; writes report/results/analysis.json

The result is the `analysis.json` of the run and the differences of the layers.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F

from check.loops import MASK, SHAPES, attention_oracle, norm_oracle
from helpers.cli import Parser, UserError, run_command, user_path
from helpers.files import write_text
from models import MyLayerNorm, MySelfAttention
from report.runs import ANALYSIS, METRICS, read_json
from sentiment_analysis import REQUIRED

RESULT = Path(__file__).parent / "results" / "analysis.json"


def layer_differences():
    """Return the largest differences of each layer from its formula in loops, PyTorch's kernel and numerical gradients.

    The result is a dict: {"shapes": number of shapes, "attention": {"loops", "pytorch", "gradient"}, "norm": the same}.
    """
    torch.manual_seed(0)
    cases = [(shape, torch.ones(shape[:2], dtype=torch.bool)) for shape in SHAPES]
    cases.append(((*MASK.shape, 4), MASK))
    largest = {"attention": {}, "norm": {}}
    for shape, mask in cases:
        x = torch.randn(shape, dtype=torch.float64)
        for name, differences in (("attention", attention_differences(x, mask)), ("norm", norm_differences(x, mask))):
            for kind, difference in differences.items():
                largest[name][kind] = max(largest[name].get(kind, 0), difference)
    return {"shapes": len(SHAPES), **largest}


def attention_differences(x, mask):
    """Return the differences of a random `MySelfAttention`: x (B, T, d), mask (B, T) -> dict of floats."""
    layer = MySelfAttention(x.shape[2]).double()
    y = layer(x, mask)
    kernel = F.scaled_dot_product_attention(layer.W_q(x), layer.W_k(x), layer.W_v(x), attn_mask=mask.unsqueeze(1))
    return {"loops": difference(y[mask], attention_oracle(layer, x, mask)[mask]),
            "pytorch": difference(y[mask], kernel[mask]),
            "gradient": gradient_difference(layer, x, mask)}


def norm_differences(x, mask):
    """Return the differences of a random `MyLayerNorm`: x (B, T, d), mask (B, T) -> dict of floats.

    PyTorch's kernel has no mask and is left out if there is padding.
    """
    layer = MyLayerNorm(x.shape[1:]).double()
    torch.nn.init.normal_(layer.gamma, mean=1)
    torch.nn.init.normal_(layer.beta)
    y = layer(x, mask)
    differences = {"loops": difference(y[mask], norm_oracle(layer, x, mask)[mask]),
                   "gradient": gradient_difference(layer, x, mask)}
    if mask.all():
        kernel = F.layer_norm(x, x.shape[1:], layer.gamma, layer.beta, eps=layer.eps)
        differences["pytorch"] = difference(y, kernel)
    return differences


def difference(ours, theirs):
    """Return the largest absolute difference of two tensors."""
    return (ours - theirs).abs().max().item()


def gradient_difference(layer, x, mask):
    """Return the largest difference between the analytic and the numerical gradients of input and parameters."""
    x = x.clone().requires_grad_()
    factors = torch.randn_like(x) * mask.unsqueeze(2)

    def random_sum():
        return (factors * layer(x, mask)).sum()

    tensors = [x, *layer.parameters()]
    analytic = torch.autograd.grad(random_sum(), tensors)
    differences = []
    for tensor, gradient in zip(tensors, analytic, strict=True):
        differences.append(difference(gradient.flatten(), numerical_gradient(random_sum, tensor)))
    return max(differences)


@torch.no_grad()
def numerical_gradient(function, tensor, step=1e-6):
    """Return the gradient of `function()` with respect to a tensor that it uses, by central differences."""
    elements = tensor.view(-1)
    gradient = torch.empty_like(elements)
    for i, value in enumerate(elements.tolist()):
        elements[i] = value + step
        above = function()
        elements[i] = value - step
        below = function()
        elements[i] = value
        gradient[i] = (above - below) / (2 * step)
    return gradient


def main():
    parser = Parser(description="Write the analysis of the reference report.")
    parser.add_argument("--run", type=user_path, required=True, help="folder of a finished run of the required setting")
    args = parser.parse_args()
    metrics = read_json(Path(args.run, "metrics.json"), METRICS)
    if metrics["data"] != "IMDB" or metrics["settings"] != asdict(REQUIRED):
        raise UserError(f"{args.run} is not a run of the required setting on IMDB; give another folder with --run.")
    seed = metrics["seed"]
    analysis = read_json(Path(args.run, "analysis.json"), ANALYSIS)
    content = {"seed": seed, **analysis, "layers": layer_differences()}
    write_text(RESULT, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"report/results/analysis.json: seed {seed}")


if __name__ == "__main__":
    run_command(main)
