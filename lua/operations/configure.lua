-- Changes what an account may do. An empty argument leaves that setting as it is.
-- ARGV    user_id, overdraft_limit, suspended (0 | 1), low_credit_thresholds (units, comma-separated, "none"),
--         metadata (JSON text)
-- Answers ok user_id overdraft_limit suspended low_credit_thresholds | too_many; then the balances
-- Writes  accounts, order, profiles, outbox (account)
function operations.configure(i)
  local a = figures_of(account_of(ARGV[i]))
  local limit, suspended, thresholds, metadata = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if not admit(a) then return '0 too_many' .. balances(a) end
  if limit ~= '' then a.overdraft_limit = limit + 0 end
  if suspended ~= '' then a.suspended = suspended == '1' and 's' or '-' end
  if thresholds ~= '' then set_thresholds(a, thresholds) end
  change_account(a)
  local detail = settings_of(a)
  if metadata ~= '' then
    profile_writes[a.user] = metadata
    detail = detail .. ',"profile":' .. metadata
  end
  record(a, 'account', 0, {}, now, detail, current_key, current_extra)
  return format('ok %s %d %s %s', a.user, a.overdraft_limit, a.suspended,
    bare_thresholds(a.thresholds)) .. balances(a)
end
