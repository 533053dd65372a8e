{#-
  The incremental core (docs/decisions/0011): a night reads and writes only what depends on the keys whose raw rows
  changed. Things that can be touched, and the columns that name them:
    orders (marketplace, order_id)   customers (customer_id)      products (marketplace, product_id)
    days (marketplace, date_on): order days, before and after
    session_days (marketplace, session_on)
  A staging model takes of the touched orders those that a raw table told of which it reads itself. A model of what orders
  hold is built by
    contents (marketplace, order_id): orders of which more may be other than their state and their delivery
  and the model of reviews by
    reviewed (marketplace, product_id): products of which a review may be another
  An order that was shipped is touched, but what sums of sales take of it is as it was. Of the orders whose sale is another:
    sale_days (marketplace, date_on)   months (marketplace, month_on): of those days
    buyers (customer_id)   buyer_months (customer_id, marketplace, month_on): of what they bought, before and after
  A model that is built by touched keys:

    {{ config(materialized="incremental", incremental_strategy="touched", touched="orders") }}
    select ... from {{ ref("int_orders__current") }} as orders where {{ where_touched("orders", "orders") }}

  Each night the strategy replaces what the table has of the touched keys by what the model gives for them, so a model
  must give, for the touched keys, all that it would give for them without the condition: group, number and join within
  the key. In a full refresh the conditions are `true`.
-#}
{% macro touched_columns(thing) -%}
    {%- set columns = {
        "orders": ["marketplace", "order_id"],
        "contents": ["marketplace", "order_id"],
        "customers": ["customer_id"],
        "buyers": ["customer_id"],
        "buyer_months": ["customer_id", "marketplace", "month_on"],
        "products": ["marketplace", "product_id"],
        "reviewed": ["marketplace", "product_id"],
        "days": ["marketplace", "date_on"],
        "sale_days": ["marketplace", "date_on"],
        "months": ["marketplace", "month_on"],
        "session_days": ["marketplace", "session_on"],
    } -%}
    {%- if thing not in columns -%}
        {{ exceptions.raise_compiler_error("touched: " ~ thing ~ " is none of " ~ columns.keys() | join(", ")) }}
    {%- endif -%}
    {{ return(columns[thing]) }}
{%- endmacro %}

{#- The columns by which a table with the columns `names` has them: a day is `date_on`, or else that of its orders. -#}
{% macro columns_in(thing, names) -%}
    {%- set is_of_orders = thing in ("days", "sale_days") and "date_on" not in names -%}
    {{ return(["marketplace", "ordered_on"] if is_of_orders else touched_columns(thing)) }}
{%- endmacro %}

{#-
  Select of the touched keys, to read from: `from {{ touched("days") }} as touched`. Columns as above; no key twice.
  Empty after a green build.
-#}
{% macro touched(thing) -%}
    {%- if is_sampled() -%} {{ return(sampled(thing)) }} {%- endif -%}
    (select distinct {{ touched_columns(thing) | join(", ") }} from {{ touched_keys(thing) }} as touched)
{%- endmacro %}

{#-
  The same for `in (...)`, where a key may come twice. The planner knows nothing of the columns of a `distinct`, takes
  each for 200 values, and then reads millions of rows in a nested loop; of a plain select it knows the statistics.
-#}
{% macro touched_keys(thing, columns=none) -%}
    {%- if is_sampled() -%} {{ return(sampled(thing)) }} {%- endif -%}
    {%- set conditions = [] -%}
    {%- if thing in ("orders", "contents") -%}
        {%- set node = (tested_model() or model) if thing == "orders" and execute else {} -%}
        {%- set tables = tables_read(node) if node.get("resource_type") == "model" else [] -%}
        {%- do conditions.append("(" ~ is_changed(tables) ~ " or days_back < " ~ lookback_days() ~ ")") -%}
    {%- elif thing in ("days", "sale_days", "months") -%}
        {%- do conditions.append("(days_back is null or days_back < " ~ lookback_days() ~ ")") -%}
    {%- endif -%}
    {%- if thing in ("sale_days", "months") -%} {%- do conditions.append("is_other_sale") -%} {%- endif -%}
    {%- if thing == "reviewed" -%} {%- do conditions.append(is_told_of(["reviews"])) -%} {%- endif -%}
    (select {{ (columns or touched_columns(thing)) | join(", ") }} from {{ touched_relation(thing) }}
    {%- if conditions %} where {{ conditions | join(" and ") }}{% endif %})
{%- endmacro %}

{#-
  The touched keys of a thing with one column as an array, for `column = any(...)`: by it a bitmap scan finds the pages of
  all of them first, and reads them ahead. A lookup for each key waits for each of its pages. The planner expects ten keys
  of an array, and does not see what it would wait for: the model has the pre-hook `read_by_bitmap`.
-#}
{% macro touched_array(thing) -%}
    array(select distinct {{ touched_columns(thing) | first }} from {{ touched_keys(thing) }} as touched)
{%- endmacro %}

{% macro read_by_bitmap() -%}
    {%- if is_incremental() -%} set local enable_indexscan = off {%- endif -%}
{%- endmacro %}

{#- Select of the months of touched buyers, whoever they are, to read from; no month of a marketplace twice. -#}
{% macro months_of_buyers() -%}
    (select distinct marketplace, month_on from {{ touched_keys("buyer_months") }} as touched)
{%- endmacro %}

{#- Condition that an order changed, by one of the raw tables that a staging model reads. -#}
{% macro is_changed(tables) -%}
    {%- if tables -%} (is_changed and {{ is_told_by(tables) }}) {%- else -%} is_changed {%- endif -%}
{%- endmacro %}

{#- The raw tables that a staging model reads: they decide which orders it has to build anew. -#}
{% macro tables_read(node) -%}
    {{ return(node.get("sources", []) | map("last") | unique | sort | list) }}
{%- endmacro %}

{#- Condition that one of the raw tables told of a touched order, or that nobody knows which did. -#}
{% macro is_told_by(tables) -%}
    (told_by is null or told_by ?| array['{{ tables | join("', '") }}'])
{%- endmacro %}

{#- What an order holds, beside its state and its delivery. -#}
{% macro contents_of_orders() -%}
    {{ return(["order_items", "payments", "adjustments", "refunds", "coupon_uses"]) }}
{%- endmacro %}

{#- Condition that a raw table told of a touched key which staging models of these conformed entities read. -#}
{% macro is_told_of(entities) -%}
    (
        told_by is null
        {%- for source_name, about in all_sources() | dictsort %}
        {%- set tables = [] %}
        {%- for entity in entities if entity in about.provides %}
        {%- set node = graph.nodes["model." ~ project_name ~ ".stg_" ~ source_name ~ "__" ~ entity] if execute else {} %}
        {%- do tables.extend(tables_read(node)) %}
        {%- endfor %}
        {%- if tables %}
        or (marketplace = {{ marketplace(source_name) }} and {{ is_told_by(tables | unique | sort | list) }})
        {%- endif %}
        {%- endfor %}
    )
{%- endmacro %}

{#-
  Condition that a row's key is touched; `true` where the model is built whole. `alias` is the relation's, `columns`
  names the key's columns where they are called otherwise; for days the default is marketplace, ordered_on.
-#}
{% macro where_touched(thing, alias=none, columns=none) -%}
    {%- if is_built_by_keys() -%}
        {%- set named = columns or columns_in(thing, []) -%}
        ({% for column in named %}{{ alias ~ "." if alias }}{{ column }}{{ ", " if not loop.last }}{% endfor %})
        in {{ touched_keys(thing) }}
    {%- else -%}
        {%- do depend_on_touched(thing) -%}
        true
    {%- endif -%}
{%- endmacro %}

{#-
  A raw table in place of `source()`: in an incremental build only the rows of touched keys, by the column that
  `changes` in the source's YAML names for the thing. Write an alias: `from {{ raw("olist", "orders") }} as orders`.
  `thing` must be what the model is `touched` by. A model that is built whole each night reads `source()`.
-#}
{% macro raw(source_name, entity, thing="orders") -%}
    {%- set relation = source(source_name, entity) -%}
    {#- Also while parsing: the table between is one that the model reads (tables_read). -#}
    {%- set through = all_sources()[source_name].get("changes", {}).get(entity, {}).get(thing, {}).get("through") -%}
    {%- set between = source(source_name, through.entity) if through -%}
    {%- do depend_on_touched(thing) -%}
    {%- if is_built_by_keys() and config.get("touched") == thing -%}
        {%- set key = touched_columns(thing)[-1] -%}
        {%- set by = changes(source_name, entity, thing) -%}
        {%- set there = by -%}
        {%- set has_number = thing == "orders" and not is_sampled() -%}
        (
            select *
            from {{ relation }}
            where {{ by.column }} in (
                {%- if by.through %}
                {%- set there = changes(source_name, by.through.entity, thing) %}
                select {{ by.through.column }}
                from {{ between }}
                where {{ there.column }} in (
                {%- endif %}
                {%- set is_number = there.type in ("integer", "bigint") %}
                select {{ key if not is_number else "order_number" if has_number else as_number(key) }}
                from {{ touched_keys(thing, ["marketplace", "order_number"] if is_number and has_number else none) }} as touched
                {%- if thing != "customers" %}
                where marketplace = {{ marketplace(source_name) }}
                {%- endif %}
                {{- ")" if by.through }}
            )
        )
    {%- else -%}
        (select * from {{ relation }})
    {%- endif -%}
{%- endmacro %}

{#- The number that a key is the text of; null where it is of none. -#}
{% macro as_number(key) -%}
    case when {{ key }} ~ '^(0|-?[1-9][0-9]{0,17})$' then {{ key }}::bigint end
{%- endmacro %}

{#- How an entity's rows name a thing: {column, type, through: none or {entity, column}}. -#}
{% macro changes(source_name, entity, thing) -%}
    {%- set found = all_sources()[source_name].get("changes", {}).get(entity, {}).get(thing) -%}
    {%- if not found -%}
        {{ exceptions.raise_compiler_error(
            source_name ~ ".yaml: `changes` of " ~ entity ~ " names no column for " ~ thing ~ ", so that "
            ~ model.name ~ " cannot be built by touched " ~ thing
        ) }}
    {%- endif -%}
    {{ return(found) }}
{%- endmacro %}

{#- The table of touched keys. Its name is written out, because tests and unit tests read it too. -#}
{% macro touched_relation(thing) -%}
    {%- do depend_on_touched(thing) -%}
    {%- set name = touched_model(thing) -%}
    {%- set node = graph.get("nodes", {}).get("model." ~ project_name ~ "." ~ name) if execute else none -%}
    {{ return(api.Relation.create(
        database=target.database, schema=node.schema if node else "intermediate", identifier=name
    )) }}
{%- endmacro %}

{% macro touched_model(thing) -%}
    {%- do touched_columns(thing) -%}
    {%- set within = {
        "orders": "order_keys", "contents": "content_keys", "months": "days", "sale_days": "days",
        "buyer_months": "buyers", "reviewed": "products",
    } -%}
    {{ return("int_touched__" ~ within.get(thing, thing)) }}
{%- endmacro %}

{#- Whether this run narrows the model to touched keys. A unit test has no `this`, and builds its model whole. -#}
{% macro is_built_by_keys() -%}
    {{ return(execute and this is not none and (is_incremental() or is_sampled())) }}
{%- endmacro %}

{#- Parsing learns that the model comes after the touched keys. Not when it runs: a unit test has no such input. -#}
{% macro depend_on_touched(thing) -%}
    {%- if not execute -%} {%- do ref(touched_model(thing)) -%} {%- endif -%}
{%- endmacro %}

{#-
  How many of the newest order days of each marketplace a model looks at whether they changed or not. A fact declares it
  (`config(meta={"lookback_days": 3})`); other models take that of the fact that looks back furthest.
-#}
{% macro lookback_days() -%}
    {%- set own = (model.config.get("meta") or {}).get("lookback_days") if execute -%}
    {{ return(max_lookback_days() if own is none else own) }}
{%- endmacro %}

{% macro max_lookback_days() -%}
    {%- set longest = namespace(days=0) -%}
    {%- if execute -%}
        {%- for node in graph.get("nodes", {}).values() if node.resource_type == "model" -%}
            {%- set longest.days = [longest.days, (node.config.get("meta") or {}).get("lookback_days", 0)] | max -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(longest.days) }}
{%- endmacro %}

{#-
  The strategy: what the model gives for the touched keys in place of what is there of them. `touched_columns` in the
  config names the key's columns where the table calls them otherwise.
-#}
{% macro get_incremental_touched_sql(arg_dict) -%}
    {%- set thing = config.get("touched") -%}
    {%- if not thing -%}
        {{ exceptions.raise_compiler_error("the strategy `touched` needs the config touched: orders, days, ...") }}
    {%- endif -%}
    {%- set names = arg_dict["dest_columns"] | map(attribute="name") | list -%}
    {%- set columns = config.get("touched_columns") or columns_in(thing, names) -%}
    {{ replace_differing(arg_dict, columns, "(" ~ columns | join(", ") ~ ") in " ~ touched_keys(thing)) }}
{%- endmacro %}

{% macro insert_all(arg_dict) -%}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}
    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }}
    from {{ arg_dict["temp_relation"] }}
{%- endmacro %}

{#-
  Replace, of the rows of the target that `condition` is true of, those that are not as the model gives them, and tell the
  publisher (include/warehouse/marts.py) which, in one transaction. Most rows of a touched order, and nearly all of a
  touched customer, are as they were: to write them again cost the most of a day's build. Rows are told apart by the
  unique index, none of whose columns is ever null, or else by `columns`, all rows of one key together. A row that is
  there is updated: where its page has room for it, that writes to no index whose columns did not change. All of it goes
  by the order of the key, so that neighbours are found and written together.
-#}
{% macro replace_differing(arg_dict, columns, condition) -%}
    {%- set target, made = arg_dict["target_relation"], arg_dict["temp_relation"] -%}
    {%- set names = arg_dict["dest_columns"] | map(attribute="name") | join(", ") -%}
    {%- set unique = config.get("indexes", []) | selectattr("unique", "defined") | list -%}
    {%- set key = unique[0]["columns"] if unique else columns -%}
    {%- set listed = key | join(", ") -%}
    {%- set same -%}
        {% for column in key %}there.{{ column }} = made.{{ column }}{{ " and " if not loop.last }}{% endfor %}
    {%- endset -%}
    {%- set digest = "hash_record_extended(row(" ~ names ~ "), 0)" -%}
    {%- set digest = (digest if unique else "sum(" ~ digest ~ ")") ~ " as digest" -%}
    {%- set grouped = "" if unique else "group by " ~ listed -%}
    drop table if exists pg_temp.differing;
    create temporary table differing on commit drop as
    select {{ listed }}, {{ "there.digest is not null and made.digest is not null" if unique else "false" }} as is_other_row
    from (select {{ listed }}, {{ digest }} from {{ target }} where {{ condition }} {{ grouped }}) as there
    full join (select {{ listed }}, {{ digest }} from {{ made }} {{ grouped }}) as made using ({{ listed }})
    where there.digest is distinct from made.digest
    order by {{ listed }};
    analyze pg_temp.differing;

    {{ note_differing(target, key) }}
    {{ touch_differing(target, made, key) }}
    delete from {{ target }} as there
    using pg_temp.differing as made
    where {{ same }} and not made.is_other_row;
    {%- set others = arg_dict["dest_columns"] | map(attribute="name") | reject("in", key) | list %}
    {% if unique and others %}
    update {{ target }} as there
    set {% for column in others %}{{ column }} = made.{{ column }}{{ ", " if not loop.last }}{% endfor %}
    from (
        select made.*
        from {{ made }} as made
        inner join pg_temp.differing using ({{ listed }})
        where differing.is_other_row
        order by {{ listed }}
    ) as made
    where {{ same }};
    {% endif %}
    insert into {{ target }} ({{ names }})
    select {{ names }}
    from {{ made }} as made
    inner join pg_temp.differing as differing using ({{ listed }})
    where not differing.is_other_row
    order by {{ listed }}
{%- endmacro %}

{% macro is_published(relation) -%}
    {{ return(relation.schema == "core" and modules.re.match("(fact|dim|rpt)_", relation.identifier) is not none) }}
{%- endmacro %}

{#-
  Tells the publisher of the rows whose keys are in pg_temp.differing. The row without a scope says that the mart was
  built in place, touched or not. One that is rebuilt whole is a new table, which the publisher sees.
-#}
{% macro note_differing(target, key) -%}
    {%- if is_published(target) -%}
        insert into ops.unpublished (mart, scope)
        select
            '{{ target.identifier }}',
            jsonb_build_object({% for column in key %}'{{ column }}', {{ column }}{{ ", " if not loop.last }}{% endfor %})
        from pg_temp.differing
        union all
        select '{{ target.identifier }}', null;
    {%- endif -%}
{%- endmacro %}

{#-
  With `touches` in the config, {thing: column}: what that column names in the rows of pg_temp.differing, before and after,
  is touched (ops.touched_work), until a build is green.
-#}
{% macro touch_differing(target, made, key) -%}
    {%- for thing, column in config.get("touches", {}).items() -%}
        insert into ops.touched_work (source, thing, key)
        select distinct '{{ target.identifier }}', '{{ thing }}', named.key
        from (
            {%- for rows in (target, made) %}
            {{ "union all" if not loop.first }}
            select rows.{{ column }}::text as key
            from {{ rows }} as rows
            inner join pg_temp.differing using ({{ key | join(", ") }})
            {%- endfor %}
        ) as named
        where named.key is not null
        on conflict do nothing;
    {%- endfor -%}
{%- endmacro %}

{#-
  The strategy of a small model that is built whole each night and that touched models look things up in: replace its
  rows, and remember what differs as touched, in the same transaction. `tracks` in the config gives SQL for
  ops.touched_work: {source, thing, key}, over the model's columns. Such a model has `full_refresh=false`: a difference
  that is not remembered would never be seen.
-#}
{% macro get_incremental_tracked_sql(arg_dict) -%}
    {%- set tracks = config.require("tracks") -%}
    {%- set before = arg_dict["target_relation"] -%}
    {%- set after = arg_dict["temp_relation"] -%}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}
    insert into ops.touched_work (source, thing, key)
    select distinct {{ tracks["source"] }}, {{ tracks["thing"] }}, ({{ tracks["key"] }})::text
    from (
        (select {{ columns }} from {{ before }} except all select {{ columns }} from {{ after }})
        union all
        (select {{ columns }} from {{ after }} except all select {{ columns }} from {{ before }})
    ) as differing
    on conflict do nothing;

    delete from {{ before }};

    {{ insert_all(arg_dict) }}
{%- endmacro %}

{#- A model's rows as the last build left them, without depending on it; no rows, the same columns, where there is none. -#}
{% macro left_by_last_build(name, columns) -%}
    {%- set found = none -%}
    {%- if execute and "model." ~ project_name ~ "." ~ name in graph.nodes -%}
        {%- set node = graph.nodes["model." ~ project_name ~ "." ~ name] -%}
        {%- set found = adapter.get_relation(node.database, node.schema, node.alias) -%}
        {#- An older version of the model may lack a column: then everything is built whole anyway. -#}
        {%- set there = adapter.get_columns_in_relation(found) | map(attribute="name") | list if found else [] -%}
        {%- if columns.keys() | reject("in", there) | list -%}
            {%- set found = none -%}
        {%- endif -%}
    {%- endif -%}
    {%- if found -%}
        (select {{ columns.keys() | join(", ") }} from {{ found }})
    {%- else -%}
        (select {% for column, kind in columns.items() %}null::{{ kind }} as {{ column }}{{ ", " if not loop.last }}{% endfor %} where false)
    {%- endif -%}
{%- endmacro %}

{#-
  Select of the orders that ops.touched_work names, with the raw table that told of them (null: any): by themselves, or by
  a row of a `tracked` table that was used for them. Those are found in what the last build left: an order that is new
  names itself. A rate is no part of what digests of orders: `by_rate` says that one changed.
-#}
{% macro orders_of_work() -%}
    {%- set key = {"marketplace": "text", "order_id": "text"} -%}
    select
        sources.marketplace,
        work.key as order_id,
        nullif(work.told_by, '') as told_by,
        false as by_rate
    from ops.touched_work as work
    inner join {{ marketplaces_of_sources() }} as sources (source, marketplace) on work.source = sources.source
    where work.thing = 'orders' and work.key <> '*'
    {%- for source_name, about in all_sources() | dictsort %}
    {%- for thing, lookup in about.get("lookups", {}) | dictsort %}
    union
    select
        used.marketplace,
        used.order_id,
        null as told_by,
        false as by_rate
    from {{ left_by_last_build("stg_" ~ source_name ~ "__" ~ lookup.used_by, dict(key, **{lookup.column: "text"})) }} as used
    inner join ops.touched_work as work on used.{{ lookup.column }}::text = work.key
    where work.thing = '{{ thing }}' and work.source = '{{ source_name }}'
    {%- endfor %}
    {%- endfor %}
    {%- for name, day in [
        ("int_orders__current", "ordered_on"),
        ("int_order_items__current", "ordered_on"),
        ("int_payments__current", "paid_on"),
        ("fact_refund", "refunded_on"),
    ] %}
    union
    select
        happened.marketplace,
        happened.order_id,
        null as told_by,
        true as by_rate
    from {{ left_by_last_build(name, dict(key, currency="text", **{day: "date"})) }} as happened
    inner join (
        -- With the marketplace, which leads the index.
        select distinct
            sources.marketplace,
            split_part(work.key, ' ', 1) as currency,
            split_part(work.key, ' ', 2)::date as rate_on
        from ops.touched_work as work
        cross join {{ marketplaces_of_sources() }} as sources (source, marketplace)
        where work.thing = 'rates'
    ) as rates
        on
            happened.marketplace = rates.marketplace
            and happened.{{ day }} = rates.rate_on
            and happened.currency = rates.currency
    {%- endfor %}
{%- endmacro %}

{#-
  What is taken of an order, by the models that have it. Column -> type.
    order: what models of its contents take of the order itself
    sale, extras: what sums take of it, and of what comes with it
-#}
{% macro parts_of_order(which) -%}
    {%- set key = {"marketplace": "text", "order_id": "text"} -%}
    {{ return({
        "order": {
            "int_orders__current": dict(
                key, customer_id="text", ordered_at="timestamptz", status="text", currency="text",
                sale_known_at="timestamptz"
            ),
            "int_orders__deleted": dict(key, ordered_on="date"),
        },
        "sale": {
            "int_orders__current": dict(
                key, customer_id="text", ordered_on="date", ordered_at="timestamptz", status="text", currency="text"
            ),
            "int_order_items__current": dict(
                key, ordered_on="date", order_item_id="text", product_id="text", vendor_id="text", quantity="integer",
                item_amount="numeric", freight_amount="numeric", currency="text"
            ),
        },
        "extras": {
            "fact_refund": dict(key, refund_id="text", kind="text", refund_reporting_amount="numeric"),
            "fact_campaign_touch": dict(key, touch_id="text"),
        },
    }[which]) }}
{%- endmacro %}

{#-
  Select of the orders in the relation `keys`, which has each once, with `digest` of those parts; an order that has none is
  absent. Of a status counts only whether it is a sale. `relations` has the relation of each model; without it the digests
  are of what the last build left.
-#}
{% macro digests_of_orders(which, keys, relations=none) -%}
    select
        marketplace,
        order_id,
        sum(content) as digest
    from (
        {%- for name, columns in parts_of_order(which).items() %}
        {{ "union all" if not loop.first }}
        select
            parts.marketplace,
            parts.order_id,
            hash_record_extended(row('{{ name }}'::text
                {%- for column in columns if column not in ("marketplace", "order_id") -%}
                , {{ is_sale("parts.status") if column == "status" else "parts." ~ column }}
                {%- endfor -%}
            ), 0) as content
        from {{ keys }} as wanted
        inner join {{ relations[name] if relations else left_by_last_build(name, columns) }} as parts
            on wanted.marketplace = parts.marketplace and wanted.order_id = parts.order_id
        {%- endfor %}
    ) as contents
    group by marketplace, order_id
{%- endmacro %}

{#- Parsing learns that the model comes after the tables that a source's YAML names under `lookups`. -#}
{% macro depend_on_lookups() -%}
    {%- if not execute -%}
        {%- for name, about in all_sources() | dictsort -%}
            {%- for thing in about.get("lookups", {}) -%} {%- do ref("int_" ~ thing ~ "__" ~ name) -%} {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{#- Each source with its marketplace, as rows. -#}
{% macro marketplaces_of_sources() -%}
    (
        values
        {%- for name, about in all_sources() | dictsort %}
        ('{{ name }}', '{{ about.marketplace }}'){{ "," if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

{#- After a model was built: statistics, where the table has none yet. An incremental build leaves them to autovacuum. -#}
{% macro analyze_once() -%}
    {%- if model.config.materialized in ("table", "incremental") -%}
    do $$ begin
        if not exists (
            select from pg_stats where schemaname = '{{ this.schema }}' and tablename = '{{ this.identifier }}'
        ) then
            analyze {{ this }};
        end if;
    end $$
    {%- endif -%}
{%- endmacro %}

{#- The model that a generic test is of; none for another test, and while parsing. Its argument `model` hides the node. -#}
{% macro tested_model() -%}
    {{ return(graph.get("nodes", {}).get(model.get("attached_node")) if execute else none) }}
{%- endmacro %}

{#- Whether this night noted which rows of the tested mart are others now (note_differing). -#}
{% macro is_noted_mart(relation) -%}
    {%- set node = tested_model() if is_night_by_keys() else none -%}
    {{ return(node is not none and node.config.materialized == "incremental" and is_published(relation)) }}
{%- endmacro %}

{#- Whether tests run in a build that builds what was touched. -#}
{% macro is_night_by_keys() -%}
    {{ return(execute and flags.WHICH == "build" and not flags.FULL_REFRESH) }}
{%- endmacro %}

{#-
  What a test of a model's rows reads: in an incremental `dbt build` the rows that were built anew, else all. The others
  are as they were when they were tested. A generic test knows by which thing its model is built; another says `thing`.
-#}
{% macro touched_rows(tested, thing=none) -%}
    {%- if thing -%} {%- do depend_on_touched(thing) -%} {%- endif -%}
    {%- set node = tested_model() -%}
    {%- set by = thing or (node.config.get("touched") if node) -%}
    {%- if by and is_night_by_keys() -%}
        {%- set columns = node.config.get("touched_columns") if node else none -%}
        {%- set columns = columns or columns_in(by, node.columns if node else []) -%}
        (select * from {{ tested }} as tested where ({{ columns | join(", ") }}) in {{ touched_keys(by) }})
    {%- else -%}
        {{ tested }}
    {%- endif -%}
{%- endmacro %}
