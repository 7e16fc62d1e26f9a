"""The table of GPU products, and what users lay over it."""

from __future__ import annotations

import re

import pytest

from policies.placement.products import MIB, ProductTableError, shipped_products
from policies.placement.supply import Links

PRODUCTS = shipped_products()


@pytest.mark.parametrize(
    ("product", "gpus", "links", "group"),
    [
        ("NVIDIA-H100-80GB-HBM3", 8, Links.FULL_MESH, 8),
        ("NVIDIA-H100-80GB-HBM3", 4, Links.FULL_MESH, 4),
        ("NVIDIA-H200", 8, Links.FULL_MESH, 8),
        ("NVIDIA-A100-SXM4-40GB", 16, Links.FULL_MESH, 16),
        ("NVIDIA-A100-SXM4-80GB", 16, Links.GROUPS, 8),
        ("NVIDIA-A100-80GB-PCIe", 4, Links.GROUPS, 2),
        ("NVIDIA-A100-PCIE-40GB", 4, Links.GROUPS, 2),
        ("NVIDIA-H100-NVL", 2, Links.GROUPS, 2),
        ("NVIDIA-GB200", 4, Links.FULL_MESH, 4),
        ("Tesla-V100-SXM2-32GB", 8, Links.CUBE, 4),
        ("Tesla-V100-SXM2-32GB", 4, Links.FULL_MESH, 4),
        ("Tesla-T4", 4, Links.NONE, 1),
        ("NVIDIA-L4", 8, Links.NONE, 1),
        ("NVIDIA-L40S", 8, Links.NONE, 1),
        ("NVIDIA-A10G", 4, Links.NONE, 1),
        ("NVIDIA-RTX-A6000", 4, Links.UNKNOWN, None),
    ],
)
def test_a_product_says_how_the_gpus_of_a_node_are_linked(
    product: str, gpus: int, links: Links, group: int | None
) -> None:
    row = PRODUCTS.find(product)
    assert row is not None
    assert row.linked(gpus) == (links, group)


def test_one_gpu_is_linked_with_itself() -> None:
    row = PRODUCTS.find("NVIDIA-L4")
    assert row is not None
    assert row.linked(1) == (Links.FULL_MESH, 1)


def test_a_product_that_is_not_listed_is_unknown_and_near_names_are_not_taken_for_it() -> None:
    for product in ("", "NVIDIA-B9000", "NVIDIA-L4-ish", "H100", "NVIDIA-L40S-SHARED"):
        assert PRODUCTS.find(product) is None


def test_no_product_matches_two_rows() -> None:
    names = [re.sub(r"[|(].*", "", row.match.pattern) for row in PRODUCTS.rows]
    for name in names:
        assert sum(row.match.fullmatch(name) is not None for row in PRODUCTS.rows) <= 1, name


def test_clouds_are_found_by_machine_type_and_by_their_own_names() -> None:
    for row in (PRODUCTS.of_instance("p5.48xlarge"), PRODUCTS.of_cloud("nvidia-h100-80gb")):
        assert row is not None
        assert row.match.pattern == "NVIDIA-H100-80GB-HBM3"
    assert PRODUCTS.of_instance("m5.large") is None


def test_a_row_laid_over_the_table_comes_first() -> None:
    table = PRODUCTS.with_rows(
        {"products": [{"match": "NVIDIA-L4", "links": "groups", "group": 2, "memoryMib": 1000}]}, source="mine.yaml"
    )
    row = table.find("NVIDIA-L4")
    assert row is not None
    assert (row.links, row.group, row.memory_bytes, row.source) == (Links.GROUPS, 2, 1000 * MIB, "mine.yaml")
    assert table.find("NVIDIA-L40S") == PRODUCTS.find("NVIDIA-L40S")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "mine.yaml: a table of products is an object with a list `products`"),
        ({"products": {}}, "a list `products`"),
        ({"products": ["L4"]}, "mine.yaml, row 1: it needs `match`"),
        ({"products": [{"match": "(", "links": "none"}]}, "match is no regular expression"),
        (
            {"products": [{"match": "X", "links": "ring"}]},
            "links is 'ring': choose one of cube, full mesh, groups, none",
        ),
        ({"products": [{"match": "X"}]}, "links is None"),
        ({"products": [{"match": "X", "links": "groups"}]}, "say in `group` how many"),
        ({"products": [{"match": "X", "links": "groups", "group": -2}]}, "group is -2: it must be a whole number"),
        ({"products": [{"match": "X", "links": "none", "memoryMib": "24G"}]}, "memoryMib is '24G'"),
        ({"products": [{"match": "X", "links": "none", "nvlink": True}]}, "nvlink is not a field"),
        ({"products": [{"match": "X", "links": "none", "instances": "g5"}]}, "instances must be a list"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_row_and_the_remedy(document: object, message: str) -> None:
    with pytest.raises(ProductTableError, match=re.escape(message)):
        PRODUCTS.with_rows(document, source="mine.yaml")
