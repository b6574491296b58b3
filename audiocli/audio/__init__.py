"""Knowledge of sound: what the formats are called, whether a body is whole, and how to turn one into another."""
