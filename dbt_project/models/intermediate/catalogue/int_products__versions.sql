{{ union_sources("products") }}
