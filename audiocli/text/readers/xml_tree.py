"""Parse XML that may be hostile into element trees, without entities, external files and deep nesting."""

from __future__ import annotations

import html.entities
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MAX_DEPTH = 256


class MalformedXml(Exception):
    """The text is not well-formed XML, or exceeds the limits. `line` is where."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


class XmlTree(NamedTuple):
    """A parsed document. `lines` has the line on which each element begins."""

    root: Element
    lines: dict[Element, int]


def parse_xml(content: bytes | str, *, has_namespaces: bool = True) -> XmlTree:
    """Parse XML. Tags are `{uri}name`, or `prefix:name` without namespaces, where prefixes need no declaration.

    Entities of HTML are decoded. A document that declares entities is refused: they can expand to any size (CWE-776),
    and external ones name files (CWE-611).

    Raises:
        MalformedXml: The text is not well-formed, declares entities or is nested deeper than 256 elements.
    """
    encoding = "utf-8" if isinstance(content, str) else None
    parser = expat.ParserCreate(encoding, namespace_separator="}" if has_namespaces else None)
    builder = TreeBuilder()
    lines: dict[Element, int] = {}
    depth = 0

    def qualify(name: str) -> str:
        return "{" + name if "}" in name else name

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise MalformedXml(f"elements are nested deeper than {MAX_DEPTH}", parser.CurrentLineNumber)
        element = builder.start(qualify(name), {qualify(key): value for key, value in attributes.items()})
        lines[element] = parser.CurrentLineNumber

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(qualify(name))

    def reject_entity(name: str, *_: object) -> None:
        raise MalformedXml(f"the entity {name!r} is declared, which is not allowed", parser.CurrentLineNumber)

    def decode_entity(name: str, is_parameter_entity: bool) -> None:
        if not is_parameter_entity:
            builder.data(html.entities.html5.get(f"{name};", ""))

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = reject_entity
    parser.SkippedEntityHandler = decode_entity
    # Without a document type, a reference to an undeclared entity would be an error.
    parser.UseForeignDTD(True)
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
        return XmlTree(builder.close(), lines)
    except expat.ExpatError as error:
        raise MalformedXml(expat.ErrorString(error.code), error.lineno) from error
    except (ValueError, LookupError, AssertionError) as error:  # an unknown encoding, or no element
        raise MalformedXml(str(error), parser.CurrentLineNumber) from error


def get_local_name(element: Element) -> str:
    """Return the tag of an element without its namespace or prefix."""
    return element.tag.rpartition("}")[2].rpartition(":")[2]


def get_attribute(element: Element, name: str, default: str = "") -> str:
    """Return the attribute with a local name, in whatever namespace."""
    for key, value in element.attrib.items():
        if key == name or key.rpartition("}")[2] == name:
            return value
    return default
