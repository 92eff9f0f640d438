"""The service: OpenAI's image API over one model, one queue and one thread per device."""
