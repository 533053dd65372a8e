{{ config(materialized="view") }}

with vendors as (
    {{ union_sources("vendors") }}
)

{{ newest("vendors", ["marketplace", "vendor_id"]) }}
