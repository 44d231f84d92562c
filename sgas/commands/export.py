"""`export RUN|GENOTYPE`: a network as files that need torch alone, checked in a fresh process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sgas.commands.common import THREADS, use_threads
from sgas.commands.show import models_of, preset_sizes, size_flags
from sgas.config import fields_of, make
from sgas.errors import ConfigError, option
from sgas.family import Family
from sgas.options import PLUGIN, Flag, Positional, Words, parse, parser_for
from sgas.protocols import cell_in_words
from sgas.running.genotype_files import genotype_label, load_genotype
from sgas.running.run_results import TrainResult
from sgas.running.runs import is_run
from sgas.running.settings import open_settings

TARGET = Positional("target", "run folder, published name or genotype file")
FLAGS = [
    PLUGIN,
    Flag(
        "format",
        "python: one readable file and its weights; torch: a program of torch.export, onnx: a "
        "model of ONNX (default: python)",
        is_switch=False,
    ),
    Flag("out", "file to write (default: the target's name, in this folder)", is_switch=False),
    Flag("preset", "preset of the size of a network that is not trained", is_switch=False),
    THREADS,
]


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `export` and returns 0; errors are raised."""
    about = (
        "Write a network as files that need torch alone: of a training with its weights, of a "
        "genotype or a search without. What was written is loaded in a fresh process and compared."
    )
    target = next(iter(Words.of(argv).positionals), None)
    asks = target is None or "--help" in argv or "-h" in argv
    genotype = None if asks else load_genotype(family, str(target))
    space = genotype.space if genotype else next(iter(family.spaces))
    sections = {f"network ({space}), where it is not trained": family.spaces[space].model_config}
    flags = FLAGS + size_flags(family, space)
    parser = parser_for(family.command, "export", about, sections, [TARGET], flags)
    values = parse(parser, argv)
    if genotype is None:
        return 0
    use_threads(values)
    folder, format = Path(values["target"]), values["format"] or "python"
    label = re.sub(r"\W+", "_", genotype_label(str(target), genotype)).strip("_")
    out = values["out"] or f"{label if label.isidentifier() else f'net_{label}'}"
    if is_run(folder) and open_settings(family, folder)[0].verb == "train":
        names = {"preset", *fields_of(family.spaces[space].model_config, "show")}
        names |= set(family.spaces[space].paper_dimensions)
        sizes = [name for name, value in values.items() if value is not None and name in names]
        if sizes:
            raise ConfigError(
                f"{option(sizes[0])} is for networks that are not trained: leave it out"
            )
        print(TrainResult.from_run(family, folder).export(out, format))
        return 0
    from sgas.exporting.python_file import About
    from sgas.running.export import export_network

    model_config = family.spaces[space].model_config
    model = make(
        model_config, {**preset_sizes(family, genotype, values["preset"], folder), **values}
    )
    models, _ = models_of(family, genotype, model, values, folder)
    origin = cell_in_words(genotype.meta)
    words = About(Path(out).stem, f"{origin}; not trained", genotype, False, None)
    network = models.build_network(genotype, False)
    print(export_network(family, space, network, None, models.example_input(), words, out, format))
    return 0
