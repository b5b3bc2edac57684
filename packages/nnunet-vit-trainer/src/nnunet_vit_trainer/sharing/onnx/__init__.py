"""A trained network as an ONNX file that a predictor needs nothing beside."""
