{{ config(indexes=[{"columns": ["session_on", "marketplace"], "unique": true}]) }}

select distinct
    sources.marketplace,
    work.key::date as session_on
from ops.touched_work as work
inner join {{ marketplaces_of_sources() }} as sources (source, marketplace) on work.source = sources.source
where work.thing = 'session_days'
