-- The row of an API key and its owner, when both may be used; whether it has expired is decided by who holds the row.
-- $1 prefix
select api_keys.id as key_id, api_keys.hash, api_keys.expires_at, users.id as user_id, users.username, users.is_admin
from api_keys join users on users.id = api_keys.owner_id
where api_keys.prefix = $1 and api_keys.is_active and users.is_active
