"""What is trained on top of the demo model, in the formats that people exchange: one file here for each kind.

Each kind is a class with the same face, used by `train_companions.py`:

- `NAME`, `FOLDER`, `STAGE`: its name on the command line, its place in a models folder, what seeds its steps;
- `PLAN`, `SMOKE`: how much is trained;
- `network`, `optimiser`, `advance(step)`: what `runs.steps_of` trains, from `Kind(run, base)` on;
- `look()` → (pictures, marks): draws with the network's present weights and lets the judge score;
- `write(folder)` → paths: writes the files, reads them back, and fails if they say anything else.
"""
