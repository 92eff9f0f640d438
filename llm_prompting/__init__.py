"""From words to a scene plan: what stands where, as a language model or a grammar reads it."""
