"""The emoji world: pictures with exact truth, their captions, and a judge that reads them back."""
