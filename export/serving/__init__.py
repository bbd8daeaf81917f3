"""Serves exported generators over HTTP, without PyTorch: `python export/serve.py`; writes repositories for Triton.

server.py starts and stops, connections.py and gate.py bound what clients may do, uploads.py decodes what they send,
batching.py translates it together with what others sent, answers.py encodes the result, and application.py joins these
and says what the service's addresses are. triton_repository.py serves nothing itself: it writes what NVIDIA's Triton
Inference Server loads.
"""
