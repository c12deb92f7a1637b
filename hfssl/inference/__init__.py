"""Inference over whole pools: predictions, embeddings, MC dropout."""
