//! Bytes to waveform to features. No tensors, no async, no HTTP.
