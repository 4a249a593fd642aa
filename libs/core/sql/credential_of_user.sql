-- A user who may still use an access token. $1 id
select users.id as user_id, users.username, users.is_admin from users where users.id = $1 and users.is_active
