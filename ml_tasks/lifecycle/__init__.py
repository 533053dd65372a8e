"""The life of a model, the same for every use case: dataset, train, evaluate, gate, register, score, explain, card."""
