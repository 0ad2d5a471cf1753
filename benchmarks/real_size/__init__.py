"""Models of published size without trained weights, pictures of 1024x768, and what is measured with them.

Untrained weights cost what trained ones cost. Tokenizers are those of the conformance tests: nothing is fetched.
"""
