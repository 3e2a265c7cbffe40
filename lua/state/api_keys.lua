-- API keys: operations that are asked for by one are judged before they are run (docs/keys.md).
--
-- api_keys.ALL  key_id -> "number hash user_id scopes expires_at models": number counts up with each change, hash is the SHA-256
--   of the text in hex, which the key_id begins with, user_id is "-" of an operator's key, scopes and models have commas
--   between, "-" stands for every model; "revoked" of a key that was
-- Behind the operations ARGV has for each key: the place of the first own argument of the operation that is asked for by it,
-- the scope that this needs, and the hash.

api_keys.PATTERN = '^%d+ (%x+) (%S+) (%S+) (%d+) (%S+)$'

-- Whether an operation that could name a model does not: a key that is for some models does not pay for it, unless it is 0.
function api_keys.names_no_model(place)
  local name = ARGV[place - 3]
  return name == 'deduct' and ARGV[place + 1] ~= '0' or name == 'reserve' or name == 'explain'
    or name == 'quote' and ARGV[place + 1] == ''
end

-- Whether a reservation is of that path or below.
function api_keys.owns(user, id)
  local holder = match(hold_texts[id] or '', '^%S+') or match(recent('r ' .. id) or '', '^%a+ (%S+)')
  return holder and (holder == user or sub(holder, 1, #user + 1) == user .. '/')
end

-- The refusal of what is asked for by a key, else nil; then its models, nil of one for all.
function api_keys.judge(text, place, scope, hash)
  local own, user, scopes, expires, models = match(text or '', api_keys.PATTERN)
  local subject = subjects[ARGV[place - 3]]
  if own ~= hash or expires + 0 <= now or subject == 'user' and user ~= ARGV[place] then return '0 invalid_key' end
  if subject == 'reservation' and not api_keys.owns(user, ARGV[place]) then return '0 not_found' end
  if not string.find(',' .. scopes .. ',', ',' .. scope .. ',', 1, true) then return '0 scope_missing ' .. scope end
  if models == '-' or subject == 'reservation' then return nil end
  if api_keys.names_no_model(place) then return '0 model_not_allowed -' end
  return nil, models
end

-- Place of an operation's first own argument -> the key that it is asked for by, judged.
function api_keys.read_all()
  local ids, found = {}, {}
  for at = api_keys.from, #ARGV, 3 do ids[#ids + 1] = 'key_' .. sub(ARGV[at + 2], 1, 20) end
  for n, text in ipairs(redis.call('HMGET', api_keys.ALL, unpack(ids))) do
    local at = api_keys.from + 3 * (n - 1)
    local place = ARGV[at] + 0
    local refusal, models = api_keys.judge(text, place, ARGV[at + 1], ARGV[at + 2])
    local makes = subjects[ARGV[place - 3]] == 'user' -- what settles is told by its hold whose key that was
    found[place] = { id = makes and ids[n], refusal = refusal, models = models }
  end
  return found
end

api_keys.presented = api_keys.read_all()

-- Takes the key of an operation to hand: its row, and the hold that it makes, name it.
function api_keys.take(key)
  api_keys.models, api_keys.mark = key.models, ' #' .. key.id
  local told = '"key_id":"' .. key.id .. '"'
  if key.models then
    api_keys.mark, told = api_keys.mark .. ',' .. key.models, told .. ',"models":"' .. key.models .. '"'
  end
  current_extra = join(told, current_extra)
end

-- From now on, who takes the caller's part of an operation takes its key too. What is refused is nobody's: no plain case.
api_keys.take_caller = take_caller
take_caller = function(at)
  api_keys.take_caller(at)
  local key = api_keys.presented[at + 1] or {}
  api_keys.refusal, api_keys.mark, api_keys.models = key.refusal, '', nil
  if key.refusal then
    ARGV[at + 1] = ''
  elseif key.id then
    api_keys.take(key)
  end
end
