"""Readers of DICOM: headers, series, slices, pictures, ultrasound, nuclear medicine."""
