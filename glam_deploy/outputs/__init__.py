"""Output files of a result: arrays (.npz), report (.json), picture (.png), and the table results.csv."""
