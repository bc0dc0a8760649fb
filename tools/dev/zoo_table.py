"""The page docs/compatibility.md, made from what the sweep found."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from zoo_trial import STEPS

HEAD = """\
# Which configs the backbone drops into

`tools/swap_backbone.py` put MSVMamba-N into every config that the libraries ship whose backbone has convolutional or
hierarchical features; `python tools/dev/sweep_zoo.py`, which makes this page, has the list. Configs that give the same
model, such as those that differ in schedule or data alone, count once. Each model is built with random weights,
predicts on images of 128×128 (up to 512×512 where its maps would be too small), and takes one training step, whose loss
and gradients in the backbone must be finite. A refusal is a failure.

Language models and teachers, which a config would download, have random weights here; lap, transformers, timm, nltk,
fairscale and scikit-learn, which some configs need, were installed. Everything runs on a CPU with 9 GiB for each
process, and some operators of mmcv do not exist there. Where a model fails, the same is tried with the backbone that
the config came with: *own too* means that this fails as well, so that not the swap is at fault. With the releases below
that is so for every GroundingDINO (its decoder encodes boxes into twice the channels that the next layer takes) and
every SSD (its head has no `loss_cls`, which predicting asks for).
"""


def page(prepared: Sequence[dict], results: Sequence[dict], versions: str) -> str:
    """The whole page.

    Args:
        prepared: All configs, with 'library', and 'skipped' where one is no part of the tables.
        results: One for each different model: 'name', 'library', `STEPS`, 'reason' and 'own'.
        versions: Of the libraries.
    """
    parts = [HEAD, f'{versions}\n', _summary(prepared, results)]
    for library in dict.fromkeys(result['library'] for result in results):
        parts.append(_families(library, [r for r in results if r['library'] == library]))
    return '\n'.join(parts)


def _summary(prepared: Sequence[dict], results: Sequence[dict]) -> str:
    lines = ['| library | configs | with such a backbone | models | build | predict | train | train, *own too* apart |']
    lines.append('|---|---|---|---|---|---|---|---|')
    for library in dict.fromkeys(result['library'] for result in results):
        configs = [entry for entry in prepared if entry['library'] == library]
        models = [result for result in results if result['library'] == library]
        sound = [result for result in models if not result['own']]
        counts = [str(sum(r[step] for r in models)) for step in STEPS[:2]]
        lines.append(
            f'| {library} | {len(configs)} | {sum("key" in entry for entry in configs)} | {len(models)} | '
            + ' | '.join(counts)
            + f' | {_share(models)} | {_share(sound)} |'
        )
    return '\n'.join(lines) + '\n'


def _share(models: Sequence[dict]) -> str:
    passed = sum(r['loss'] for r in models)
    return f'{passed} of {len(models)} ({passed / len(models):.1%})' if models else '–'


def _families(library: str, results: Iterable[dict]) -> str:
    families = defaultdict(list)
    for result in results:
        families[result['name'].split('/')[1]].append(result)
    lines = [f'## {library}\n', '| configs in | models | build | predict | train | what does not, and why |']
    lines.append('|---|---|---|---|---|---|')
    for family, models in sorted(families.items()):
        counts = ' | '.join(str(sum(r[step] for r in models)) for step in STEPS)
        lines.append(f'| {family} | {len(models)} | {counts} | {_reasons(models)} |')
    return '\n'.join(lines) + '\n'


def _reasons(models: Sequence[dict]) -> str:
    reasons = Counter(_reason(r) for r in models if not r['loss'])
    return '; '.join(reason if count == 1 else f'{count} × {reason}' for reason, count in reasons.items())


def _reason(result: dict) -> str:
    reason = ' '.join(result['reason'].split())
    # a table has no room for a whole message
    reason = (reason if len(reason) <= 160 else reason[:159].rstrip() + '…').replace('|', '\\|')
    return f'{reason} (own too)' if result['own'] else reason
