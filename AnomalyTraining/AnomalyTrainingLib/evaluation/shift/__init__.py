"""How a cohort from elsewhere differs from the one a model was made with, and what becomes of the model on it."""
