"""Three versions of a digits classifier: ONNX files with their manifests, and the script that trained them."""
