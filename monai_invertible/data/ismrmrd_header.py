"""The XML header of an ISMRMRD acquisition: matrix size and field of view of the reconstructed image.

Every fastMRI file carries the header in its data set ``ismrmrd_header``. Only the standard library parses it, and a
header with a document type is refused: without one there are no entities to expand. Element names are matched in any
namespace.

Source: Inati et al., ISMRM Raw data format, Magn Reson Med 77, 2017; schema ``ismrmrd.xsd``.
"""

from __future__ import annotations

from xml.etree import ElementTree

__all__ = ["parse_ismrmrd_header"]


def parse_ismrmrd_header(header: bytes | str, name: str = "ismrmrd_header") -> tuple[list[int], list[float]]:
    """Read the reconstructed matrix and the voxel size.

    Args:
        header: the XML text, UTF-8.
        name: what the errors call it, usually the path of the file.

    Returns:
        ``recon_size`` (rows, columns) in pixels and ``spacing`` (rows, columns, slices) in mm: the field of view of
        ``reconSpace`` over its matrix. x is the readout (the rows of fastMRI's arrays), y the phase encoding (columns).

    Raises:
        ValueError: if the text has a document type or entities, is not XML, or has no complete first ``reconSpace``.
    """
    remedy = "Write the file again with a complete ISMRMRD header, or take the original file."
    try:
        text = header.decode("utf-8") if isinstance(header, bytes) else header
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError(f"{name}: an ISMRMRD header must have no document type and no entities, got one. {remedy}")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: the ISMRMRD header must be UTF-8 XML, got: {error}. {remedy}") from error

    def read(element: str, axis: str) -> float:
        found = root.find(f".//{{*}}encoding/{{*}}reconSpace/{{*}}{element}/{{*}}{axis}")
        try:
            value = float(found.text or "") if found is not None else 0.0
        except ValueError:
            value = 0.0
        if not 0.0 < value < float("inf"):
            raise ValueError(
                f"{name}: the ISMRMRD header must give a positive encoding/reconSpace/{element}/{axis}, "
                f"got {None if found is None else found.text!r}. {remedy}"
            )
        return value

    matrix = [int(read("matrixSize", axis)) for axis in "xyz"]
    return matrix[:2], [read("fieldOfView_mm", axis) / size for axis, size in zip("xyz", matrix, strict=True)]
