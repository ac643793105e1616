// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IReportManager, IToken, NodeLine} from "./Types.sol";
import {Owned} from "./Owned.sol";

/// Nodes, their stakes, and the treasury. A delegation is a number of *shares* of a node's stake: a reward or penalty
/// changes the stake, hence every delegation in proportion, in one write. All tokens here belong to somebody:
/// balance of tokens = sum of balanceOf + sum of exits + sum of stakes + treasurySupply (plus what was sent here by
/// mistake).
///
/// What is undelegated counts no longer as stake, but stays here until the committee has changed twice. A committee is
/// chosen from the stakes at its epoch's start, a little before the last report of the epoch before makes it the
/// contract's; so whoever was chosen with a stake has it here until the last report of that epoch is accepted.
contract NodeManager is Owned {
    uint256 public constant MAX_METADATA = 4096;

    /// One slot. A generation's shares are void once its stake is used up by penalties.
    struct Pool {
        uint96 stake;
        uint128 shares;
        uint32 generation;
    }

    /// Undelegated tokens, free once ReportManager counts `readyAt` rotations. Undelegating again renews the wait.
    struct Exit {
        uint96 amount;
        uint64 readyAt;
    }

    IToken public immutable stakeToken;
    uint256 public immutable stakeRequiredAmount;
    address public immutable reportManager;

    uint256 public treasurySupply;
    uint256 public startBlockNumber;
    mapping(address account => uint256) public balanceOf;
    mapping(address account => Exit) public exitOf;

    address[] private _nodes;
    address[] private _staked;
    mapping(address node => uint256) private _position; // in _nodes, from 1; 0 = not registered
    mapping(address node => uint256) private _stakedPosition; // in _staked, from 1; 0 = below the requirement
    mapping(address node => string) private _metadata;
    mapping(address node => uint256) private _lastSeen;
    mapping(address node => Pool) private _pools;
    mapping(address node => mapping(uint256 generation => mapping(address delegate => uint256))) private _shares;

    event NodeUpdated(address indexed nodeAddress, string metadata, bool indexed isNew, uint256 lastSeen);
    event NodeRemoved(address indexed nodeAddress);
    event StakeDelegateUpdated(
        address indexed delegate,
        address indexed node,
        uint256 amount,
        uint256 totalStake,
        uint256 totalDelegated,
        bool delegated
    );
    event NodeLineShort(address indexed node, int256 wanted, int256 settled);

    error OnlyReportManager();
    error NotRegistered();
    error MetadataTooLong();
    error DelegationsRemain();
    error IsMember(address node);
    error ZeroAmount();
    error AmountTooSmall();
    error InsufficientBalance(uint256 available, uint256 wanted);
    error TransferFailed();
    error ZeroRequirement();

    constructor(IToken token, uint256 stakeRequiredAmount_, address reportManager_) {
        if (stakeRequiredAmount_ == 0) revert ZeroRequirement();
        stakeToken = token;
        stakeRequiredAmount = stakeRequiredAmount_;
        reportManager = reportManager_;
    }

    // --- membership ------------------------------------------------------------------------------------------------

    /// Registers the caller, or replaces its metadata. JSON, by convention with "http" and "validator" URLs.
    function upsertNode(string calldata metadata) external {
        _upsert(metadata);
    }

    /// Registers the caller and delegates `amount` of its own tokens to itself.
    function join(uint256 amount, string calldata metadata) external {
        _upsert(metadata);
        stakeAndDelegate(amount, msg.sender);
    }

    /// Takes the caller off the list. Every delegation must have left before.
    function removeNode() external {
        _remove();
    }

    /// Undelegates all the caller has delegated to itself, takes it off the list, and pays what is free already.
    function leave() external {
        uint256 shares = _shares[msg.sender][_pools[msg.sender].generation][msg.sender];
        if (shares > 0) _burn(msg.sender, shares, delegatesOf(msg.sender, msg.sender));
        _remove();
        _release();
        uint256 amount = balanceOf[msg.sender];
        if (amount > 0) withdraw(amount);
    }

    function nodes(address node)
        external
        view
        returns (string memory metadata, uint256 lastSeen, uint256 stakeAmount, uint256 shares)
    {
        return (_metadata[node], _lastSeen[node], _pools[node].stake, _pools[node].shares);
    }

    function totalNodes() external view returns (uint256) {
        return _nodes.length;
    }

    function nodeAddresses() external view returns (address[] memory) {
        return _nodes;
    }

    function nodeStake(address node) external view returns (uint256) {
        return _pools[node].stake;
    }

    function isStaked(address node) external view returns (bool) {
        return _stakedPosition[node] != 0;
    }

    function totalStaked() external view returns (uint256) {
        return _staked.length;
    }

    /// Staked nodes `from` (first: 0) to `from + count`, with what a validator needs of them. Only staked nodes are
    /// listed, so that nobody can make the list long for free.
    function stakedNodes(uint256 from, uint256 count)
        external
        view
        returns (uint256 total, address[] memory addresses, uint256[] memory stakes, string[] memory metadata)
    {
        total = _staked.length;
        uint256 size = from >= total ? 0 : total - from;
        if (size > count) size = count;
        addresses = new address[](size);
        stakes = new uint256[](size);
        metadata = new string[](size);
        for (uint256 i = 0; i < size; ++i) {
            address node = _staked[from + i];
            addresses[i] = node;
            stakes[i] = _pools[node].stake;
            metadata[i] = _metadata[node];
        }
    }

    // --- money -----------------------------------------------------------------------------------------------------

    /// Brings `amount` of the caller's tokens here, delegated to nobody yet.
    function stake(uint256 amount) public {
        if (amount == 0) revert ZeroAmount();
        if (!stakeToken.transferFrom(msg.sender, address(this), amount)) revert TransferFailed();
        balanceOf[msg.sender] += amount;
    }

    /// Makes `amount` of the caller's balance stake of `node`.
    function delegate(uint256 amount, address node) public {
        if (amount == 0) revert ZeroAmount();
        if (_position[node] == 0) revert NotRegistered();
        _release();
        uint256 available = balanceOf[msg.sender];
        if (available < amount) revert InsufficientBalance(available, amount);
        balanceOf[msg.sender] = available - amount;

        Pool memory pool = _pools[node];
        uint256 minted;
        if (pool.stake == 0 || uint256(pool.stake) << 32 < pool.shares) {
            // Nothing, or less than a 2^32nd, is left of the old stake: its shares would only lose precision.
            if (pool.shares != 0) ++pool.generation;
            minted = uint256(pool.stake) + amount;
            pool.shares = uint128(minted);
        } else {
            minted = (amount * pool.shares) / pool.stake;
            uint256 worth = (minted * (pool.stake + amount)) / (pool.shares + minted);
            if (minted == 0 || worth < amount - amount / 1000) revert AmountTooSmall();
            pool.shares += uint128(minted);
        }
        pool.stake += uint96(amount);
        _pools[node] = pool;
        _shares[node][pool.generation][msg.sender] += minted;
        _updateStaked(node, pool.stake);
        emit StakeDelegateUpdated(msg.sender, node, amount, pool.stake, delegatesOf(msg.sender, node), true);
    }

    function stakeAndDelegate(uint256 amount, address node) public {
        stake(amount);
        delegate(amount, node);
    }

    /// Takes `amount` of the caller's delegation out of the node's stake; it is free after two rotations.
    function undelegate(uint256 amount, address node) external {
        if (amount == 0) revert ZeroAmount();
        uint256 delegated = delegatesOf(msg.sender, node);
        if (delegated < amount) revert InsufficientBalance(delegated, amount);
        Pool storage pool = _pools[node];
        uint256 shares = _shares[node][pool.generation][msg.sender];
        if (amount < delegated) {
            uint256 needed = (amount * pool.shares + pool.stake - 1) / pool.stake;
            if (needed < shares) shares = needed;
        }
        _burn(node, shares, amount);
    }

    /// Pays `amount` of what is free of the caller's out.
    function withdraw(uint256 amount) public {
        _release();
        uint256 available = balanceOf[msg.sender];
        if (available < amount) revert InsufficientBalance(available, amount);
        balanceOf[msg.sender] = available - amount;
        if (!stakeToken.transfer(msg.sender, amount)) revert TransferFailed();
    }

    function treasuryWithdraw(uint256 amount) external onlyOwner {
        uint256 available = treasurySupply;
        if (available < amount) revert InsufficientBalance(available, amount);
        treasurySupply = available - amount;
        if (!stakeToken.transfer(msg.sender, amount)) revert TransferFailed();
    }

    /// What a delegate's shares of a node's stake are worth, rounded down.
    function delegatesOf(address delegate_, address node) public view returns (uint256) {
        Pool memory pool = _pools[node];
        if (pool.shares == 0) return 0;
        return (_shares[node][pool.generation][delegate_] * pool.stake) / pool.shares;
    }

    // --- settlement ------------------------------------------------------------------------------------------------

    /// Applies a report's node lines with the tokens that came in for them. Penalties come first, each at most the
    /// stake. If captures and penalties together are less than the rewards, the treasury goes empty first, then all
    /// rewards shrink in proportion. A line for an address nobody has delegated to goes to the treasury. Whatever the
    /// lines say: rewards + treasury = captured + penalties.
    function settle(NodeLine[] calldata lines, uint256 captured) external returns (uint256 treasury) {
        if (msg.sender != reportManager) revert OnlyReportManager();
        uint256 rewards;
        treasury = captured;
        for (uint256 i = 0; i < lines.length; ++i) {
            int256 amount = lines[i].amount;
            if (amount >= 0) {
                rewards += uint256(amount);
            } else {
                treasury += _penalise(lines[i].node, uint256(-amount));
            }
        }
        uint256 available = treasury;
        for (uint256 i = 0; i < lines.length; ++i) {
            if (lines[i].amount <= 0) continue;
            uint256 amount = uint256(lines[i].amount);
            if (rewards > available) amount = (amount * available) / rewards;
            Pool storage pool = _pools[lines[i].node];
            if (pool.shares == 0 || pool.stake == 0) amount = 0;
            if (amount != uint256(lines[i].amount)) {
                emit NodeLineShort(lines[i].node, lines[i].amount, int256(amount));
                if (amount == 0) continue;
            }
            uint256 total = pool.stake + amount;
            pool.stake = uint96(total);
            if (total - amount < stakeRequiredAmount) _updateStaked(lines[i].node, total);
            unchecked {
                treasury -= amount;
            }
        }
        if (treasury > 0) treasurySupply += treasury;
    }

    function _penalise(address node, uint256 wanted) private returns (uint256 taken) {
        uint256 before = _pools[node].stake;
        taken = wanted < before ? wanted : before;
        if (taken < wanted) emit NodeLineShort(node, -int256(wanted), -int256(taken));
        if (taken == 0) return 0;
        _pools[node].stake = uint96(before - taken);
        _updateStaked(node, before - taken);
    }

    // --- inside ----------------------------------------------------------------------------------------------------

    function _upsert(string calldata metadata) private {
        if (bytes(metadata).length > MAX_METADATA) revert MetadataTooLong();
        bool isNew = _position[msg.sender] == 0;
        if (isNew) {
            if (_nodes.length == 0) startBlockNumber = block.number;
            _nodes.push(msg.sender);
            _position[msg.sender] = _nodes.length;
        }
        _metadata[msg.sender] = metadata;
        _lastSeen[msg.sender] = block.timestamp;
        emit NodeUpdated(msg.sender, metadata, isNew, block.timestamp);
    }

    function _remove() private {
        if (_position[msg.sender] == 0) revert NotRegistered();
        if (IReportManager(reportManager).isMember(msg.sender)) revert IsMember(msg.sender);
        Pool storage pool = _pools[msg.sender];
        if (pool.stake != 0) revert DelegationsRemain();
        // A stake that penalties have used up: its shares are void, and stay so if the node comes back.
        if (pool.shares != 0) {
            pool.shares = 0;
            ++pool.generation;
        }
        _take(_nodes, _position, msg.sender);
        if (_nodes.length == 0) startBlockNumber = 0;
        delete _metadata[msg.sender];
        delete _lastSeen[msg.sender];
        emit NodeRemoved(msg.sender);
    }

    function _burn(address node, uint256 shares, uint256 amount) private {
        Pool memory pool = _pools[node];
        _shares[node][pool.generation][msg.sender] -= shares;
        pool.shares -= uint128(shares);
        pool.stake -= uint96(amount);
        if (pool.shares == 0 && pool.stake != 0) {
            // Rounding left a crumb that nobody owns.
            treasurySupply += pool.stake;
            pool.stake = 0;
        }
        _pools[node] = pool;
        _release();
        Exit storage leaving = exitOf[msg.sender];
        leaving.amount += uint96(amount);
        leaving.readyAt = IReportManager(reportManager).rotations() + 2;
        _updateStaked(node, pool.stake);
        emit StakeDelegateUpdated(msg.sender, node, amount, pool.stake, delegatesOf(msg.sender, node), false);
    }

    /// Adds the caller's exit to its balance, if the committee has changed often enough since.
    function _release() private {
        Exit memory leaving = exitOf[msg.sender];
        if (leaving.amount == 0 || leaving.readyAt > IReportManager(reportManager).rotations()) return;
        delete exitOf[msg.sender];
        balanceOf[msg.sender] += leaving.amount;
    }

    function _updateStaked(address node, uint256 total) private {
        bool listed = _stakedPosition[node] != 0;
        if (total >= stakeRequiredAmount) {
            if (listed) return;
            _staked.push(node);
            _stakedPosition[node] = _staked.length;
        } else if (listed) {
            _take(_staked, _stakedPosition, node);
        }
    }

    /// Takes one address out of a list by moving the last one into its place.
    function _take(address[] storage list, mapping(address => uint256) storage position, address account) private {
        uint256 place = position[account];
        address last = list[list.length - 1];
        list[place - 1] = last;
        position[last] = place;
        list.pop();
        delete position[account];
    }
}
