"""Requests and answers in the form of OpenAI's API, without a server."""
