"""Searches a point-cloud cell on generated solids, trains it, and opens the test split once."""

from sgas.interface import search, train
from sgas_gcn.family import FAMILY

found = search(FAMILY, "shapes", strategy="cri2", seed=0)
print(found.genotype.to_text())
for record in found.decisions:
    print(f"epoch {record.epoch}: edge {record.edge} is {record.op}, margin {record.margin}")
trained = train(FAMILY, found)
print(trained.result["parameters"], "parameters,", trained.evaluate()["accuracy"], "accuracy")
