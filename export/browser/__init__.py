"""Writes web pages that translate in a browser, with ONNX Runtime Web; `write_web_page` of `page` makes one.

`weights` packs a generator, `runtime_package` fetches ONNX Runtime Web, `page.html`, `page.js` and `worker.js` are the
page.
"""
