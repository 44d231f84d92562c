"""Searches a point-cloud cell on generated solids, trains it, and opens the test split once."""

import sgas_gcn
from sgas.deciding.schedule import shown_epoch

searched = sgas_gcn.search("shapes", strategy="cri2", seed=0)
print(searched)
for record in searched.decisions:
    epoch = shown_epoch(record.epoch)  # records count from 0
    print(f"epoch {epoch}: edge {record.edge} is {record.op}, margin {record.margin}")
trained = sgas_gcn.train(searched)
print(trained.result["parameters"], "parameters,", trained.evaluate()["accuracy"], "accuracy")
