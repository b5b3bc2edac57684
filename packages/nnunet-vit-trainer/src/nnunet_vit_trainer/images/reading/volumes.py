"""Volumes, and slices in the patient's space: NIfTI, NRRD, MetaImage and DICOM, by SimpleITK."""

from pathlib import Path

import numpy as np
import SimpleITK

from vit_backbone import UserError, reason_of

from .pixels import Geometry, Pixels

INVERTED = "_inverted"
"""Behind the names of channels in which black is high (DICOM's MONOCHROME1)."""

_MODALITY, _PHOTOMETRIC = "0008|0060", "0028|0004"
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_DICOM_SAYS = (_MODALITY, _PHOTOMETRIC)
_MOST_UNEVEN = 0.01
"""Of the distance between slices, as a share of it."""


def read_volume(file: Path) -> Pixels:
    """Read a file: 2D, 3D, or 3D with channels in a fourth dimension or in each voxel.

    Args:
        file: of an ending in `sources.VOLUMES`, DICOM without one, or a picture.

    Raises:
        UserError: unreadable, or of more dimensions.
    """
    try:
        image = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        raise UserError(f"cannot be read ({_reason(error)})") from error
    said = {key: image.GetMetaData(key) for key in _DICOM_SAYS if image.HasMetaDataKey(key)}
    return _pixels_of(image, said)


def read_series(folder: Path) -> Pixels:
    """Read the one DICOM series in a folder.

    Args:
        folder: its files lie in it, not below it.

    Raises:
        UserError: several series, slices that are missing, twice there or tilted, or unreadable.
    """
    series = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise UserError(f"holds {len(series)} DICOM series; a folder for each series is expected")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    reader.MetaDataDictionaryArrayUpdateOn()
    reader.SetSpacingWarningRelThreshold(np.inf)  # they are refused below
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(f"cannot be read ({_reason(error)})") from error
    _check_slices(reader, len(reader.GetFileNames()))
    said = {key: reader.GetMetaData(0, key) for key in _DICOM_SAYS if reader.HasMetaDataKey(0, key)}
    return _pixels_of(image, said)


def _check_slices(reader: SimpleITK.ImageSeriesReader, count: int) -> None:
    """Refuse slices that are not one even, upright stack: ITK would only warn of that."""
    if count < 2 or not all(reader.HasMetaDataKey(i, _POSITION) for i in range(count)):
        return
    at = np.array([_numbers(reader.GetMetaData(i, _POSITION)) for i in range(count)])
    steps = np.diff(at, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    usual = float(np.median(lengths))
    if lengths.min() < usual * _MOST_UNEVEN or usual == 0:
        raise UserError("has two slices at the same place; keep one of them, or one phase")
    if np.abs(lengths - usual).max() > usual * _MOST_UNEVEN:
        largest = float(lengths.max())
        raise UserError(f"misses slices: they lie {usual:.3g} mm apart, but once {largest:.3g} mm")
    if reader.HasMetaDataKey(0, _ORIENTATION):
        along_x, along_y = _numbers(reader.GetMetaData(0, _ORIENTATION)).reshape(2, 3)
        across = np.abs(steps @ np.cross(along_x, along_y)) / lengths
        if across.min() < 1 - _MOST_UNEVEN / 10:
            raise UserError("was taken with a tilted gantry; resample it to an upright stack")


def _pixels_of(image: SimpleITK.Image, dicom: dict[str, str]) -> Pixels:
    dimensions, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    values = SimpleITK.GetArrayFromImage(image)
    if dimensions > 4 or (dimensions == 4 and components > 1) or values.dtype.kind not in "uif":
        raise UserError(f"has {dimensions} dimensions of {image.GetPixelIDTypeAsString()}")
    if components > 1:
        values = np.moveaxis(values, -1, 0)
    elif dimensions == 4:
        image = image[:, :, :, 0]  # for its geometry: channels are along the fourth dimension
    else:
        values = values[None]
    geometry = Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Pixels(values, _channel_names(len(values), components, dicom), geometry)


def _channel_names(count: int, components: int, dicom: dict[str, str]) -> tuple[str, ...]:
    if count == components == 3:
        return ("R", "G", "B")
    name = dicom.get(_MODALITY, "").strip() or "image"
    if dicom.get(_PHOTOMETRIC, "").strip() == "MONOCHROME1":
        name += INVERTED
    return (name,) if count == 1 else tuple(f"{name}_{number}" for number in range(count))


def _numbers(text: str) -> np.ndarray:
    return np.array([float(number) for number in text.split("\\")])


def _reason(error: RuntimeError) -> str:
    """Return the last line of what ITK says, which is the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return reason_of(RuntimeError(lines[-1] if lines else "SimpleITK says nothing"), 120)
